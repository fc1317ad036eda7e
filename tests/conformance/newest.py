"""Writes the backend test cases of the installed `onnx` package as folders: OUT/node/<case>/..., OUT/simple/...

usage: newest.py OUT
Older wheels ship the node cases as files; newer ones only hold the code that makes them, which this runs."""
import os
import shutil
import sys

import onnx
from onnx import numpy_helper
from onnx.backend.test.case.model import collect_testcases as models
from onnx.backend.test.case.node import collect_testcases as nodes
from onnx.onnx_pb import TensorProto


def serialise(value, info):
    kind = info.type.WhichOneof("value")
    if isinstance(value, TensorProto):
        return value.SerializeToString()
    make = {"sequence_type": numpy_helper.from_list, "optional_type": numpy_helper.from_optional,
            "map_type": numpy_helper.from_dict}.get(kind, numpy_helper.from_array)
    return make(value, info.name).SerializeToString()


def main(out):
    try:
        cases = list(models()) + list(nodes())
    except TypeError:  # before onnx 1.14 the operator is a required argument: None means all
        cases = list(models()) + list(nodes(None))
    count = failed = 0
    for case in cases:
        if case.kind == "real" or case.model is None:
            continue
        folder = os.path.join(out, case.kind, case.name)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for i, (inputs, outputs) in enumerate(case.data_sets):
                sets = os.path.join(folder, f"test_data_set_{i}")
                os.makedirs(sets)
                for kind, values, infos in (("input", inputs, case.model.graph.input),
                                            ("output", outputs, case.model.graph.output)):
                    for j, value in enumerate(values):
                        with open(os.path.join(sets, f"{kind}_{j}.pb"), "wb") as f:
                            f.write(serialise(value, infos[j]))
            with open(os.path.join(folder, "model.onnx"), "wb") as f:
                f.write(case.model.SerializeToString())
            count += 1
        except Exception as e:  # a case whose values this package version cannot serialise
            shutil.rmtree(folder, ignore_errors=True)
            failed += 1
            print(f"{case.name}: {e}", file=sys.stderr)
    data = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
    for kind in ("pytorch-converted", "pytorch-operator"):
        if os.path.isdir(os.path.join(data, kind)):
            shutil.copytree(os.path.join(data, kind), os.path.join(out, kind), dirs_exist_ok=True)
    print(f"onnx {onnx.__version__}: {count} cases made, {failed} could not be")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
