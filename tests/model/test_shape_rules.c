/* Shape rules, table-driven. A row: operator, inputs, attributes, outputs.
 *   inputs   "f32[1,3,n,?]" shape; "f32*" unknown rank; "i64{2,-1}" a vector with data; "i64(5)" a
 *            scalar with data; "i64<n,4>" a vector whose elements are known as dims; "-" absent
 *   attrs    "pads=1,1 group:2 auto_pad='VALID' alpha:0.5f": lists, integers, strings
 *   outputs  as inputs, or "!text": an error whose message has that text */
#include "model/shape/shape.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX 16

typedef struct row {
    trm_op op;
    const char *inputs, *attrs, *outputs;
} row;

static const row rows[] = {
    /* elementwise and broadcasting */
    {TRM_OP_Relu, "f32[2,n]", "", "f32[2,n]"},
    {TRM_OP_Relu, "f32*", "", "f32*"},
    {TRM_OP_Add, "f32[2,1,4] f32[3,1]", "", "f32[2,3,4]"},
    {TRM_OP_Add, "f32[] f32[0,3]", "", "f32[0,3]"},
    {TRM_OP_Add, "f32[n,4] f32[1,4]", "", "f32[n,4]"},
    {TRM_OP_Add, "f32[n] f32[m]", "", "f32[?]"},
    {TRM_OP_Add, "f32[2,3] f32[2,4]", "", "!do not broadcast"},
    {TRM_OP_Add, "f32[2] i64[2]", "", "!dtype"},
    {TRM_OP_Add, "f32[2] -", "", "!missing"},
    {TRM_OP_Add, "f32[2]", "", "!inputs"},
    {TRM_OP_Pow, "f32[2,3] i32[]", "", "f32[2,3]"},
    {TRM_OP_Max, "f32[2] f32[1] f32[3,1]", "", "f32[3,2]"},
    {TRM_OP_Less, "f32[2] f32[1]", "", "bool[2]"},
    {TRM_OP_IsNaN, "f32[2]", "", "bool[2]"},
    {TRM_OP_Where, "bool[2,1] f32[3] f32[]", "", "f32[2,3]"},
    {TRM_OP_Where, "bool[2] f32[2] i64[2]", "", "!dtype"},
    {TRM_OP_PRelu, "f32[2,3,4] f32[3,1]", "", "f32[2,3,4]"},
    {TRM_OP_PRelu, "f32[3] f32[2,3]", "", "!slope"},
    {TRM_OP_Cast, "f32[2]", "to:7", "i64[2]"},
    {TRM_OP_Cast, "f32[2]", "to:8", "!ONNX dtype 8"},
    {TRM_OP_CastLike, "f32[2] f16[9]", "", "f16[2]"},
    {TRM_OP_BitCast, "f32[2]", "to:6", "i32[2]"},
    {TRM_OP_BitCast, "f32[2]", "to:7", "!width"},
    {TRM_OP_Clip, "f32[2] - f32[]", "", "f32[2]"},
    {TRM_OP_Clip, "f32[2] f32[3]", "", "!min must be a scalar"},
    {TRM_OP_SwiGLU, "f32[2,3] f32[2,3]", "", "f32[2,3]"},
    {TRM_OP_SwiGLU, "f32[2,3] f32[2,1]", "", "!must be equal"},
    /* normalisations and losses */
    {TRM_OP_Softmax, "f32[2,3]", "axis:1", "f32[2,3]"},
    {TRM_OP_Softmax, "f32[2,3]", "axis:2", "!axis 2"},
    {TRM_OP_Softmax, "f32[2,3]", "axis:-9223372036854775808", "!axis"},
    {TRM_OP_CumSum, "f32[2,3] i64(-3)", "", "!axis -3"},
    {TRM_OP_BatchNormalization, "f32[1,3,2] f32[3] f32[3] f32[3] f32[3]", "", "f32[1,3,2]"},
    {TRM_OP_BatchNormalization, "f32[1,3,2] f32[3] f32[4] f32[3] f32[3]", "", "!channels"},
    {TRM_OP_LayerNormalization, "f32[2,3,4] f32[4] f32[4]", "", "f32[2,3,4] f32[2,3,1] f32[2,3,1]"},
    {TRM_OP_LayerNormalization, "f32[2,3,4] f32[5]", "", "!do not broadcast"},
    {TRM_OP_GroupNormalization, "f32[2,6,4] f32[6] f32[6]", "num_groups:4", "!num_groups"},
    {TRM_OP_GroupNormalization, "f32[2,6,4] f32[3] f32[3]", "num_groups:3 per_group:1",
     "f32[2,6,4]"},
    {TRM_OP_GroupNormalization, "f32[2,6,4] f32[6] f32[6]", "num_groups:3 per_group:1", "!groups"},
    {TRM_OP_NegativeLogLikelihoodLoss, "f32[3,5,2] i64[3,2]", "reduction='none'", "f32[3,2]"},
    {TRM_OP_NegativeLogLikelihoodLoss, "f32[3,5,2] i64[3,2]", "", "f32[]"},
    {TRM_OP_SoftmaxCrossEntropyLoss, "f32[3,5] i64[3] f32[5]", "", "f32[] f32[3,5]"},
    {TRM_OP_SoftmaxCrossEntropyLoss, "f32[3,5] i64[4]", "", "!target"},
    /* reductions and selections */
    {TRM_OP_ReduceSum, "f32[2,3,4] i64{-1}", "", "f32[2,3,1]"},
    {TRM_OP_ReduceSum, "f32[2,3,4] i64{0,2}", "keepdims:0", "f32[3]"},
    {TRM_OP_ReduceMean, "f32[2,3]", "keepdims:0", "f32[]"},
    {TRM_OP_ReduceMean, "f32[2,3]", "noop_with_empty_axes:1", "f32[2,3]"},
    {TRM_OP_ReduceMean, "f32[2,3] i64{2}", "", "!axis 2"},
    {TRM_OP_ReduceMean, "f32[2,3] i64[1]", "", "f32[?,?]"},
    {TRM_OP_ArgMax, "f32[2,n]", "axis:0 keepdims:0", "i64[n]"},
    {TRM_OP_TopK, "f32[2,n] i64{3}", "", "f32[2,3] i64[2,3]"},
    {TRM_OP_TopK, "f32[2,2] i64{3}", "", "!k is 3"},
    {TRM_OP_NonZero, "f32[2,3]", "", "i64[2,?]"},
    {TRM_OP_Unique, "f32[2,3]", "axis:1", "f32[2,?] i64[?] i64[3] i64[?]"},
    {TRM_OP_Compress, "f32[2,3] bool[2]", "", "f32[?]"},
    {TRM_OP_NonMaxSuppression, "f32[1,9,4] f32[1,2,9] i64(3)", "", "i64[?,3]"},
    {TRM_OP_NonMaxSuppression, "f32[1,9,5] f32[1,2,9]", "", "!must be 4"},
    /* convolutions and pools */
    {TRM_OP_Conv, "f32[n,3,224,224] f32[64,3,7,7]", "pads=3,3,3,3 strides=2,2",
     "f32[n,64,112,112]"},
    {TRM_OP_Conv, "f32[1,4,8] f32[4,1,3] f32[4]", "group:4 dilations=2", "f32[1,4,4]"},
    {TRM_OP_Conv, "f32[1,3,h,w] f32[8,3,3,3]", "pads=1,1,1,1", "f32[1,8,h,w]"},
    {TRM_OP_Conv, "f32[1,3,5,5] f32[8,3,3,3]", "auto_pad='SAME_UPPER' strides=2,2", "f32[1,8,3,3]"},
    {TRM_OP_Conv, "f32[1,3,5,5] f32[8,4,3,3]", "", "!channels"},
    {TRM_OP_Conv, "f32[1,3,2,2] f32[8,3,3,3]", "", "!does not fit"},
    {TRM_OP_Conv, "f32[1,3,5] f32[8,3,3,3]", "", "!rank"},
    {TRM_OP_Conv, "f32[1,3,5,5] f32[8,3,3,3]", "strides=0,1", "!strides"},
    {TRM_OP_Conv, "f32[1,3,5,5] f32[8,3,3,3]", "pads=1,1", "!pads"},
    {TRM_OP_Conv, "f32[1,3,5,5] f32[8,3,3,3] f32[7]", "", "!bias"},
    {TRM_OP_Conv, "f32[1,3,5,5] f32[8,3,3,3]", "group:0", "!group"},
    {TRM_OP_Conv, "f32[] f32[8,3,3,3]", "", "!rank 0"},
    {TRM_OP_Conv, "f32* f32[8,3,3,3]", "", "f32[?,8,?,?]"},
    {TRM_OP_ConvInteger, "u8[1,1,3,3] u8[1,1,2,2] u8[]", "", "i32[1,1,2,2]"},
    {TRM_OP_QLinearConv, "u8[1,1,7,7] f32[] u8[] u8[1,1,1,1] f32[] u8[] f32[] i8[]", "",
     "i8[1,1,7,7]"},
    {TRM_OP_ConvTranspose, "f32[1,1,3,3] f32[1,2,3,3]", "strides=3,2 output_padding=1,1",
     "f32[1,2,10,8]"},
    {TRM_OP_ConvTranspose, "f32[1,1,h,3] f32[1,2,2,2]", "strides=2,2", "f32[1,2,h*2,6]"},
    {TRM_OP_ConvTranspose, "f32[1,1,3,3] f32[1,2,3,3]", "output_shape=10,8", "f32[1,2,10,8]"},
    {TRM_OP_CausalConvWithState, "f32[2,4,9] f32[4,1,3]", "", "f32[2,4,9] f32[2,4,2]"},
    {TRM_OP_MaxPool, "f32[1,3,32,32]", "kernel_shape=2,2 strides=2,2",
     "f32[1,3,16,16] i64[1,3,16,16]"},
    {TRM_OP_MaxPool, "f32[1,1,4,4]", "kernel_shape=3,3 strides=2,2 ceil_mode:1",
     "f32[1,1,2,2] i64[1,1,2,2]"},
    {TRM_OP_MaxPool, "f32[1,1,2,2]", "kernel_shape=1,1 strides=2,2 ceil_mode:1",
     "f32[1,1,1,1] i64[1,1,1,1]"},
    {TRM_OP_AveragePool, "f32[1,1,4]", "", "!kernel_shape"},
    {TRM_OP_GlobalAveragePool, "f32[n,3,7,7]", "", "f32[n,3,1,1]"},
    {TRM_OP_RoiAlign, "f32[1,3,9,9] f32[5,4] i64[5]", "output_height:2 output_width:3",
     "f32[5,3,2,3]"},
    {TRM_OP_MaxUnpool, "f32[1,1,2,2] i64[1,1,2,2]", "kernel_shape=2,2 strides=2,2", "f32[1,1,4,4]"},
    {TRM_OP_Col2Im, "f32[1,5,5] i64{5,5} i64{1,5}", "", "f32[1,1,5,5]"},
    /* products */
    {TRM_OP_MatMul, "f32[n,12,s,64] f32[n,12,64,s]", "", "f32[n,12,s,s]"},
    {TRM_OP_MatMul, "f32[3] f32[2,3,4]", "", "f32[2,4]"},
    {TRM_OP_MatMul, "f32[3] f32[3]", "", "f32[]"},
    {TRM_OP_MatMul, "f32[2,3] f32[4,5]", "", "!3 columns"},
    {TRM_OP_MatMul, "f32[] f32[4,5]", "", "!scalar"},
    {TRM_OP_Gemm, "f32[3,n] f32[4,3] f32[4]", "transA:1 transB:1", "f32[n,4]"},
    {TRM_OP_Gemm, "f32[2,3] f32[3,4] f32[5]", "", "!do not broadcast"},
    {TRM_OP_Einsum, "f32[b,2,3] f32[b,3,4]", "equation='bij, bjk -> bik'", "f32[b,2,4]"},
    {TRM_OP_Einsum, "f32[3,3]", "equation='ii'", "f32[]"},
    {TRM_OP_Einsum, "f32[5,3,4]", "equation='...ij->...ji'", "f32[5,4,3]"},
    {TRM_OP_Einsum, "f32[2,3] f32[4,5]", "equation='ij,jk->ik'", "!letter"},
    {TRM_OP_Einsum, "f32[2,3]", "equation='ij,jk'", "!terms"},
    {TRM_OP_Einsum, "f32[2,3]", "equation='i$'", "!'$'"},
    {TRM_OP_Det, "f32[5,3,3]", "", "f32[5]"},
    {TRM_OP_Attention, "f32[2,4,8] f32[2,6,8] f32[2,6,12]", "q_num_heads:4 kv_num_heads:2",
     "!head size"},
    {TRM_OP_Attention, "f32[2,3,4,8] f32[2,3,6,8] f32[2,3,6,10] - f32[2,3,12,8] f32[2,3,12,10]", "",
     "f32[2,3,4,10] f32[2,3,18,8] f32[2,3,18,10] f32[2,3,4,18]"},
    {TRM_OP_TrmAttention, "f32[2,3,4,8] f32[2,3,8,6] f32[2,3,6,10]", "k_transposed:1",
     "f32[2,3,4,10]"},
    {TRM_OP_RotaryEmbedding, "f32[2,3,9] f32[5,2] f32[5,2]", "", "!num_heads"},
    /* views */
    {TRM_OP_Reshape, "f32[2,3,4] i64{0,-1}", "", "f32[2,12]"},
    {TRM_OP_Reshape, "f32[n,12,s,64] i64<n,s,768>", "", "f32[n,s,768]"},
    {TRM_OP_Reshape, "f32[n,s,768] i64{0,0,12,64}", "", "f32[n,s,12,64]"},
    {TRM_OP_Reshape, "f32[n,s,768] i64{0,-1,12,64}", "", "f32[n,s,12,64]"},
    {TRM_OP_Reshape, "f32[n,256,6,6] i64{-1,9216}", "", "f32[n,9216]"},
    {TRM_OP_Reshape, "f32[2,3] i64{4,-1}", "", "!do not fill"},
    {TRM_OP_Reshape, "f32[2,3] i64{7}", "", "!do not fit"},
    {TRM_OP_Reshape, "f32[2,3] i64{-1,-1}", "", "!twice"},
    {TRM_OP_Reshape, "f32[2,3] i64{-2}", "", "!-2"},
    {TRM_OP_Reshape, "f32[0,3] i64{0,-1}", "", "f32[0,3]"},
    {TRM_OP_Reshape, "f32[0,3] i64{3,0}", "allowzero:1", "f32[3,0]"},
    {TRM_OP_Reshape, "f32[4] i64[2]", "", "f32[?,?]"},
    {TRM_OP_Flatten, "f32[n,3,4]", "", "f32[n,12]"},
    {TRM_OP_Flatten, "f32[]", "axis:0", "f32[1,1]"},
    {TRM_OP_Squeeze, "f32[1,3,1] i64{-1}", "", "f32[1,3]"},
    {TRM_OP_Squeeze, "f32[1,3,1]", "", "f32[3]"},
    {TRM_OP_Squeeze, "f32[1,3,1] i64{1}", "", "!3 elements"},
    {TRM_OP_Unsqueeze, "f32[3] i64{0,-1}", "", "f32[1,3,1]"},
    {TRM_OP_Unsqueeze, "f32[3] i64{0,0}", "", "!twice"},
    {TRM_OP_Transpose, "f32[2,n,4]", "perm=2,0,1", "f32[4,2,n]"},
    {TRM_OP_Transpose, "f32[2,3]", "perm=0,0", "!permutation"},
    {TRM_OP_Shape, "f32[2,n,4]", "start:1", "i64<n,4>"},
    {TRM_OP_Size, "f32[2,n,4]", "", "i64[]"},
    {TRM_OP_Expand, "f32[3,1] i64{2,1,6}", "", "f32[2,3,6]"},
    {TRM_OP_Tile, "f32[2,n] i64{3,2}", "", "f32[6,n*2]"},
    /* cut, join, pad, resize */
    {TRM_OP_Concat, "f32[2,n] f32[3,n]", "axis:0", "f32[5,n]"},
    {TRM_OP_Concat, "i64<n> i64{-1} i64<4>", "axis:0", "i64<n,?,4>"},
    {TRM_OP_Concat, "f32[2,3] f32[3,4]", "axis:0", "!dims off the axis"},
    {TRM_OP_Split, "f32[7,2]", "num_outputs:3", "f32[3,2] f32[3,2] f32[1,2]"},
    {TRM_OP_Split, "f32[6,2] i64{2,4}", "", "f32[2,2] f32[4,2]"},
    {TRM_OP_Split, "f32[6,2] i64{5}", "", "!add up to 5"},
    {TRM_OP_Slice, "f32[20,10,5] i64{0,0} i64{3,10} i64{0,1} i64{1,1}", "", "f32[3,10,5]"},
    {TRM_OP_Slice, "f32[20] i64{-1} i64{-9223372036854775807} i64{0} i64{-2}", "", "f32[10]"},
    {TRM_OP_Slice, "f32[20] i64{1000} i64{2000}", "", "f32[0]"},
    {TRM_OP_Slice, "f32[n,8] i64{1} i64{9223372036854775807}", "", "f32[n-1,8]"},
    {TRM_OP_Slice, "f32[1,512] i64{0} i64<s> i64{1}", "", "f32[1,s]"},
    {TRM_OP_Slice, "f32[20] i64{0} i64{2} i64{0} i64{0}", "", "!step"},
    {TRM_OP_Slice, "i64<n,3,m> i64{1} i64{3}", "", "i64<3,m>"},
    {TRM_OP_Pad, "f32[2,n] i64{0,1,0,2}", "", "f32[2,n+3]"},
    {TRM_OP_Pad, "f32[2,3] i64{1,1} - i64{-1}", "", "f32[2,5]"},
    {TRM_OP_Pad, "f32[2,3] i64{0,-2,0,-2}", "", "!cut off"},
    {TRM_OP_CenterCropPad, "f32[20,8,3] i64{10,9}", "axes=1,2", "f32[20,10,9]"},
    {TRM_OP_DepthToSpace, "f32[1,8,2,3]", "blocksize:2", "f32[1,2,4,6]"},
    {TRM_OP_SpaceToDepth, "f32[1,2,4,6]", "blocksize:4", "!divide"},
    {TRM_OP_Resize, "f32[1,1,2,n] - f32{1,1,2.5,2}", "", "f32[1,1,5,n*2]"},
    {TRM_OP_Resize, "f32[1,1,2,4] - - i64{1,1,7,8}", "", "f32[1,1,7,8]"},
    {TRM_OP_Resize, "f32[1,1,2,4] - - i64{7,8}", "axes=2,3 keep_aspect_ratio_policy='not_larger'",
     "f32[1,1,4,8]"},
    {TRM_OP_Resize, "f32[1,1,2,4]", "", "!either"},
    /* gather and scatter */
    {TRM_OP_Gather, "f32[30522,768] i64[n,s]", "", "f32[n,s,768]"},
    {TRM_OP_Gather, "i64<n,3,4> i64(-1)", "", "i64[]"},
    {TRM_OP_TrmAttentionPacked, "f16[n,s,96] f32[n,1,1,s]", "heads:2 dim:16 v_dim:16",
     "f16[n,s,32]"},
    {TRM_OP_TrmAttentionPacked, "f32[n,s,95]", "heads:2 dim:16 v_dim:16", "!rows are not"},
    {TRM_OP_TrmGatherPart, "f32[100,768] i64[n,s]", "", "f32[n,s,768]"},
    {TRM_OP_TrmImageTable, "u8[n,7,5,3] f32[3,256]", "", "f32[n,3,7,5]"},
    {TRM_OP_TrmImageTable, "u8[n,7,5,3] f32[3,256]", "channels_last:1", "f32[n,7,5,3]"},
    {TRM_OP_TrmImageTable, "u8[n,7,5,3] f32[1,256]", "", "!channels"},
    {TRM_OP_TrmImageTable, "u8[n,7,5,3] f32[3,255]", "", "!256"},
    {TRM_OP_GatherElements, "f32[3,3] i64[2,3]", "axis:0", "f32[2,3]"},
    {TRM_OP_GatherND, "f32[2,2,2] i64[2,1]", "batch_dims:1", "f32[2,2]"},
    {TRM_OP_GatherND, "f32[2,2] i64[2,3]", "", "!tuples of 3"},
    {TRM_OP_ScatterND, "f32[4,4,4] i64[2,1] f32[2,4,4]", "", "f32[4,4,4]"},
    {TRM_OP_ScatterND, "f32[4,4,4] i64[2,1] f32[2,4,5]", "", "!updates"},
    {TRM_OP_ScatterElements, "f32[3,3] i64[2,3] f32[2,3]", "", "f32[3,3]"},
    {TRM_OP_TensorScatter, "f32[2,9,4] f32[2,1,4] i64[2]", "", "f32[2,9,4]"},
    {TRM_OP_GridSample, "f32[1,3,9,9] f32[1,4,5,2]", "", "f32[1,3,4,5]"},
    {TRM_OP_AffineGrid, "f32[2,2,3] i64{2,3,5,6}", "", "f32[2,5,6,2]"},
    /* generation */
    {TRM_OP_ConstantOfShape, "i64<n,3>", "", "f32[n,3]"},
    {TRM_OP_ConstantOfShape, "i64{-3}", "", "!size -3"},
    {TRM_OP_Range, "i64(10) i64(4) i64(-2)", "", "i64<10,8,6>"},
    {TRM_OP_Range, "f32(1) f32(5) f32(2)", "", "f32[2]"},
    {TRM_OP_Range, "i64(0) i64(4) i64(0)", "", "!delta"},
    {TRM_OP_OneHot, "i64[2,3] i64(7) f32[2]", "axis:1", "f32[2,7,3]"},
    {TRM_OP_HannWindow, "i32(10)", "output_datatype:11", "f64[10]"},
    {TRM_OP_MelWeightMatrix, "i64(8) i64(16) i64(8192) f32(0) f32(4096)", "", "f32[9,8]"},
    {TRM_OP_DFT, "f32[1,10,10,1]", "onesided:1", "f32[1,10,6,2]"},
    {TRM_OP_DFT, "f32[1,10,10,1] - i64(-1)", "", "!axis"},
    {TRM_OP_STFT, "f32[1,128,1] i64(8) - i64(16)", "", "f32[1,15,9,2]"},
    /* recurrent, quantised */
    {TRM_OP_LSTM, "f32[7,n,3] f32[2,20,3] f32[2,20,5]", "hidden_size:5 direction='bidirectional'",
     "f32[7,2,n,5] f32[2,n,5] f32[2,n,5]"},
    {TRM_OP_GRU, "f32[7,2,3] f32[1,15,3] f32[1,15,5]", "layout:1", "f32[7,2,1,5] f32[7,1,5]"},
    {TRM_OP_LSTM, "f32[7,2,3] f32[1,15,3] f32[1,20,5]", "", "!gates of W"},
    {TRM_OP_QuantizeLinear, "f32[2,3] f32[] i8[]", "", "i8[2,3]"},
    {TRM_OP_QuantizeLinear, "f32[2,3] f32[]", "output_dtype:4", "u16[2,3]"},
    {TRM_OP_QuantizeLinear, "f32[2,3] f32[4]", "axis:1", "!scales"},
    {TRM_OP_DequantizeLinear, "u8[2,3] f16[]", "", "f16[2,3]"},
    {TRM_OP_DynamicQuantizeLinear, "f32[2,3]", "", "u8[2,3] f32[] u8[]"},
    /* absurd sizes */
    {TRM_OP_Tile, "f32[1099511627776,4] i64{2,1}", "", "!at most 2^40"},
    {TRM_OP_Expand, "f32[1] i64{9223372036854775807}", "", "!at most 2^40"},
    {TRM_OP_Unsqueeze, "f32[1,1,1,1,1,1,1,1] i64{0}", "", "!at most 8"},
};

typedef struct spec {
    trm_tensor t[MAX];
    int64_t values[MAX][TRM_SHAPE_VALUES_MAX];
    bool has_values[MAX], absent[MAX];
    int count;
} spec;

static int64_t read_dim(trm_graph *g, const char **s)
{
    char name[32];
    int64_t dim = 0;
    int n = 0;

    if (**s == '?') {
        ++*s;
        return TRM_DIM_UNKNOWN;
    }
    if (**s == '-' || (**s >= '0' && **s <= '9'))
        return strtoll(*s, (char **)(uintptr_t)s, 10);
    while (strchr(",]>})", **s) == NULL && n < 31)
        name[n++] = *(*s)++;
    name[n] = '\0';
    ck_assert_int_eq(trm_graph_symbol(g, name, &dim), TRM_OK);
    return dim;
}

static void read_one(trm_graph *g, const char **s, spec *to)
{
    trm_tensor *t = &to->t[to->count];
    char dtype[8], open;
    int n = 0;

    *t = (trm_tensor){.rank = -1};
    if (**s == '-') {
        to->absent[to->count++] = true;
        ++*s;
        return;
    }
    while (strchr("[{(<*", **s) == NULL && n < 7)
        dtype[n++] = *(*s)++;
    dtype[n] = '\0';
    t->dtype = trm_dtype_from_name(dtype);
    open = *(*s)++;
    n = 0;
    if (open == '*') {
        to->count++;
        return;
    }
    while (strchr("]})>", **s) == NULL) {
        if ((open == '{' || open == '(') && trm_dtype_is_float(t->dtype)) {
            if (t->data == NULL)
                t->data = trm_arena_alloc(g->arena, MAX, 8);
            trm_tensor_set_f64(t, (size_t)n++, strtod(*s, (char **)(uintptr_t)s));
        } else {
            int64_t d = read_dim(g, s);

            if (open == '[')
                t->dims[n++] = d;
            else
                to->values[to->count][n++] = d;
            if (open == '{' || open == '(') {
                if (t->data == NULL)
                    t->data = trm_arena_alloc(g->arena, MAX, 8);
                trm_tensor_set_i64(t, (size_t)n - 1, d);
            }
        }
        if (**s == ',')
            ++*s;
    }
    ++*s;
    t->rank = open == '[' ? n : open == '(' ? 0 : 1;
    if (open == '{' || open == '<')
        t->dims[0] = n;
    to->has_values[to->count++] = open == '<';
}

static void read_spec(trm_graph *g, const char *s, spec *to)
{
    memset(to, 0, sizeof(*to));
    while (*s != '\0') {
        ck_assert_int_lt(to->count, MAX);
        read_one(g, &s, to);
        while (*s == ' ')
            s++;
    }
}

static void read_attrs(trm_graph *g, const char *s, trm_attrs *attrs)
{
    while (*s != '\0') {
        char name[40], text[60];
        int64_t list[MAX];
        size_t n = 0;
        int k = 0;

        while (*s != '=' && *s != ':')
            name[n++] = *s++;
        name[n] = '\0';
        n = 0;
        if (*s == ':') {
            s++;
            ck_assert_int_eq(
                trm_attr_set_int(attrs, g->arena, name, strtoll(s, (char **)(uintptr_t)&s, 10)),
                TRM_OK);
        } else if (s[1] == '\'') {
            for (s += 2; *s != '\''; s++)
                text[k++] = *s;
            text[k] = '\0';
            s++;
            ck_assert_int_eq(trm_attr_set_string(attrs, g->arena, name, text), TRM_OK);
        } else {
            do {
                s++;
                list[n++] = strtoll(s, (char **)(uintptr_t)&s, 10);
            } while (*s == ',');
            ck_assert_int_eq(trm_attr_set_ints(attrs, g->arena, name, list, n), TRM_OK);
        }
        while (*s == ' ')
            s++;
    }
}

START_TEST(rule)
{
    const row *r = &rows[_i];
    const char *op = trm_op_get(r->op)->name;
    int in_ids[MAX], out_ids[MAX];
    const int64_t *in_values[MAX] = {NULL};
    int64_t out_store[MAX][TRM_SHAPE_VALUES_MAX], *out_values[MAX];
    bool out_known[MAX] = {false};
    trm_tensor out[MAX];
    trm_node node = {.op = r->op, .name = "node", .inputs = in_ids, .outputs = out_ids};
    spec in, want;
    trm_graph *g;
    trm_shape_io io;
    trm_status st;

    ck_assert_int_eq(trm_graph_create(NULL, "g", &g), TRM_OK);
    read_spec(g, r->inputs, &in);
    read_attrs(g, r->attrs, &node.attrs);
    memset(&want, 0, sizeof(want));
    if (r->outputs[0] != '!')
        read_spec(g, r->outputs, &want);
    node.input_count = in.count;
    node.output_count = want.count == 0 ? trm_op_get(r->op)->out_min : want.count;
    for (int i = 0; i < MAX; i++) {
        in_ids[i] = in.absent[i] ? TRM_NO_VALUE : i;
        out_ids[i] = MAX + i;
        in_values[i] = in.has_values[i] ? in.values[i] : NULL;
        out_values[i] = out_store[i];
    }
    io = (trm_shape_io){g, &node, in.t, in_values, out, out_values, out_known};
    st = trm_shape_infer(&io);
    if (r->outputs[0] == '!') {
        ck_assert_msg(st == TRM_ERR_INVALID_ARG || st == TRM_ERR_UNSUPPORTED, "%s %s: status %d",
                      op, r->inputs, (int)st);
        ck_assert_msg(strstr(trm_message(), r->outputs + 1) != NULL, "%s: message '%s' lacks '%s'",
                      op, trm_message(), r->outputs + 1);
        ck_assert_msg(strstr(trm_message(), op) != NULL, "no operator in '%s'", trm_message());
        trm_graph_destroy(g);
        return;
    }
    ck_assert_msg(st == TRM_OK, "%s %s: %s", op, r->inputs, trm_message());
    for (int k = 0; k < want.count; k++) {
        char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];

        ck_assert_msg(out[k].dtype == want.t[k].dtype && trm_tensor_same_shape(&out[k], &want.t[k]),
                      "%s %s: output %d is %s %s, want %s %s", op, r->inputs, k,
                      trm_dtype_name(out[k].dtype), trm_tensor_shape_text(&out[k], a, sizeof(a)),
                      trm_dtype_name(want.t[k].dtype),
                      trm_tensor_shape_text(&want.t[k], b, sizeof(b)));
        if (!want.has_values[k])
            continue;
        ck_assert_msg(out_known[k], "%s %s: elements of output %d are not known", op, r->inputs, k);
        for (int i = 0; i < want.t[k].dims[0]; i++)
            ck_assert_msg(out_store[k][i] == want.values[k][i],
                          "%s %s: element %d is %lld, want %lld", op, r->inputs, i,
                          (long long)out_store[k][i], (long long)want.values[k][i]);
    }
    trm_graph_destroy(g);
}
END_TEST

/* Every operator has a rule, and none crashes on empty, scalar, deep or unknown inputs. */
START_TEST(no_rule_crashes)
{
    static const char *const shapes[] = {"f32*",
                                         "f32[]",
                                         "f32[0]",
                                         "i64{}",
                                         "i64{-9223372036854775807,9223372036854775807}",
                                         "i64(-9223372036854775807)",
                                         "f32(-1e30)",
                                         "f32[?,?,?]",
                                         "f32[0,0,0,0]",
                                         "f32[1,2,3,4,5,6,7,8]",
                                         "f32[1099511627776,1099511627776,1099511627776,"
                                         "1099511627776]",
                                         "i64<n,?,3>",
                                         "-"};
    const int n = (int)(sizeof(shapes) / sizeof(shapes[0]));
    trm_op op = (trm_op)(_i + 1);
    trm_graph *g;
    spec kinds[16], *in = (spec *)malloc(sizeof(spec));

    ck_assert_msg(trm_shape_rule_get(op) != NULL, "%s has no rule", trm_op_get(op)->name);
    ck_assert_int_eq(trm_graph_create(NULL, "g", &g), TRM_OK);
    for (int i = 0; i < n; i++)
        read_spec(g, shapes[i], &kinds[i]);
    srand(7);
    for (int round = 0; round < 600; round++) {
        int ids[MAX], counts = trm_op_get(op)->in_min + rand() % 4;
        const int64_t *in_values[MAX];
        int64_t store[MAX][TRM_SHAPE_VALUES_MAX], *out_values[MAX];
        bool known[MAX];
        trm_tensor out[MAX];
        trm_node node = {.op = op, .name = "node", .inputs = ids, .outputs = ids};
        trm_shape_io io = {g, &node, in->t, in_values, out, out_values, known};

        for (int i = 0; i < MAX; i++) {
            int k = rand() % n;

            in->t[i] = kinds[k].t[0];
            memcpy(in->values[i], kinds[k].values[0], sizeof(in->values[i]));
            in_values[i] = kinds[k].has_values[0] ? in->values[i] : NULL;
            ids[i] = kinds[k].absent[0] ? TRM_NO_VALUE : i;
            out_values[i] = store[i];
        }
        node.input_count = counts;
        node.output_count = trm_op_get(op)->out_min == 0 ? 1 : trm_op_get(op)->out_min;
        if (rand() % 2)
            ck_assert_int_eq(trm_attr_set_int(&node.attrs, g->arena, "axis", rand() % 20 - 10),
                             TRM_OK);
        if (rand() % 2)
            ck_assert_int_eq(trm_attr_set_ints(&node.attrs, g->arena, "kernel_shape",
                                               (int64_t[2]){3, INT64_MAX}, 2),
                             TRM_OK);
        if (rand() % 2)
            ck_assert_int_eq(trm_attr_set_int(&node.attrs, g->arena, "block_size", INT64_MAX),
                             TRM_OK);
        if (rand() % 2)
            io.graph = NULL;
        if (trm_shape_infer(&io) == TRM_OK)
            for (int k = 0; k < node.output_count; k++)
                ck_assert_int_le(out[k].rank, TRM_RANK_MAX);
    }
    free(in);
    trm_graph_destroy(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("shape rules");
    TCase *t = tcase_create("rules");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, rule, 0, (int)(sizeof(rows) / sizeof(rows[0])));
    tcase_add_loop_test(t, no_rule_crashes, 0, TRM_OP_COUNT - 1);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
