"""Writes small ONNX models, arrays and pictures byte by byte: what no exporter would write is wanted here too."""
import struct
import zlib

F32, U8, I32, STRING, I64 = 1, 2, 6, 8, 7


def varint(v):
    v &= (1 << 64) - 1
    out = b""
    while v > 127:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def field(number, value):
    """One protobuf field: an int is a varint, a str or bytes a block."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def attribute(name, value):
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, 2)
    if isinstance(value, list):
        return field(1, name) + b"".join(field(8, v) for v in value) + field(20, 7)
    if isinstance(value, str):
        return field(1, name) + field(4, value) + field(20, 3)
    return field(1, name) + field(6, value) + field(20, 5)  # bytes: a graph


def node(op, inputs, outputs, name="", domain="", **attributes):
    out = b"".join(field(1, i) for i in inputs) + b"".join(field(2, o) for o in outputs)
    out += field(3, name or op.lower()) + field(4, op)
    out += b"".join(field(5, attribute(k, v)) for k, v in attributes.items())
    return out + (field(7, domain) if domain else b"")


def tensor(name, elem, dims, raw=None, external=None):
    out = b"".join(field(1, d) for d in dims) + field(2, elem) + field(8, name)
    if raw is not None:
        out += field(9, raw)
    if external is not None:
        for key, value in external.items():
            out += field(13, field(1, key) + field(2, str(value)))
        out += field(14, 1)
    return out


def info(name, elem, dims):
    shape = b""
    for d in dims or []:
        shape += field(1, field(2, d) if isinstance(d, str) else field(1, d))
    kind = field(1, elem) + (field(2, shape) if dims is not None else b"")
    return field(1, name) + field(2, field(1, kind))


def graph(nodes, inputs, outputs, tensors=()):
    out = b"".join(field(1, n) for n in nodes) + field(2, "g") + b"".join(field(5, t) for t in tensors)
    return out + b"".join(field(11, i) for i in inputs) + b"".join(field(12, o) for o in outputs)


def model(nodes, inputs, outputs, tensors=(), opset=17):
    return field(1, 8) + field(2, "test") + field(7, graph(nodes, inputs, outputs, tensors)) + field(8, field(2, opset))


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def npy(descr, shape, data, order="False"):
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def png(width, height, rows=None):
    """A grey-scale PNG of one shade, or of the given bytes."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x80" * width) * height if rows is None else rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
