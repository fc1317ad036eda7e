# Trains the network and writes the pictures (torch 1.13, scikit-learn): python3 make-digits.py
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F, os, json, struct, zlib
from sklearn.datasets import load_digits
torch.manual_seed(0); torch.set_num_threads(1); np.random.seed(0)
d=load_digits(); X=(d.images/16.0).astype(np.float32); y=d.target
# 8x8 -> 32x32 by bilinear up-scaling, stored as 8-bit grey images
up=F.interpolate(torch.from_numpy(X)[:,None],size=(32,32),mode='bilinear',align_corners=False)
img=(up.clamp(0,1)*255).round().to(torch.uint8)
perm=np.random.permutation(len(y)); te=perm[:360]; tr=perm[360:]
def norm(u8): return (u8.float()/255-0.5)/0.5
class ResBlock(nn.Module):
    def __init__(s,ci,co,st):
        super().__init__()
        s.c1=nn.Conv2d(ci,co,3,st,1,bias=False); s.b1=nn.BatchNorm2d(co); s.c2=nn.Conv2d(co,co,3,1,1,bias=False); s.b2=nn.BatchNorm2d(co)
        s.d=nn.Sequential(nn.Conv2d(ci,co,1,st,bias=False),nn.BatchNorm2d(co)) if (st>1 or ci!=co) else nn.Identity()
    def forward(s,x): return F.relu(s.b2(s.c2(F.relu(s.b1(s.c1(x)))))+s.d(x))
class Net(nn.Module):
    def __init__(s):
        super().__init__(); s.stem=nn.Sequential(nn.Conv2d(1,16,3,1,1,bias=False),nn.BatchNorm2d(16),nn.ReLU(),nn.MaxPool2d(2))
        s.l1=ResBlock(16,16,1); s.l2=ResBlock(16,32,2); s.l3=ResBlock(32,64,2); s.fc=nn.Linear(64,10)
    def forward(s,x):
        x=s.l3(s.l2(s.l1(s.stem(x)))); return s.fc(x.mean((2,3)))
m=Net(); opt=torch.optim.AdamW(m.parameters(),lr=3e-3,weight_decay=1e-2)
xt=norm(img[tr]); yt=torch.from_numpy(y[tr]); EP=15; sch=torch.optim.lr_scheduler.OneCycleLR(opt,3e-3,total_steps=EP*23)
for ep in range(EP):
    p=torch.randperm(len(tr))
    for i in range(23):
        b=p[i*64:(i+1)*64]
        if len(b)==0: break
        xb=xt[b]; sh=torch.randint(-2,3,(2,)); xb=torch.roll(xb,(int(sh[0]),int(sh[1])),(2,3))
        loss=F.cross_entropy(m(xb),yt[b]); opt.zero_grad(); loss.backward(); opt.step(); sch.step()
m.eval()
with torch.no_grad(): lg=m(norm(img[te])); acc=(lg.argmax(1).numpy()==y[te]).mean()
print('test acc',acc, sum(p.numel() for p in m.parameters()))
os.makedirs('digits/images',exist_ok=True)
torch.onnx.export(m,torch.zeros(1,1,32,32),'digits/model.onnx',input_names=['image'],output_names=['logits'],dynamic_axes={'image':{0:'batch'},'logits':{0:'batch'}},opset_version=13)
from PIL import Image
with open('digits/labels.csv','w') as f:
    f.write('file,label\n')
    for k,i in enumerate(te):
        n=f'{k:03d}.png'; Image.fromarray(img[i,0].numpy()).save('digits/images/'+n,optimize=True); f.write(f'{n},{y[i]}\n')
np.savetxt('digits/reference_logits.csv',lg.numpy(),fmt='%.6f',delimiter=',')
