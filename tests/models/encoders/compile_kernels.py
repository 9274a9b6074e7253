"""Compile every kernel for a GPU that need not be here; run by test_kernels.py, outside Triton's interpreter."""

import inspect
import sys

CONSTANTS = {"WIDTH": 64, "PADDED": 32, "BLOCK": 64, "ADD": True, "EXACT": False, "LARGEST": 448.0}
INTEGERS = {"num_blocks", "num_heads", "width", "size"}
FLOATS = {"scale", "eps"}
FULL = {"cos", "sin", "slopes", "scales"}


def kind(kernel: str, name: str, dtype: str) -> str:
    if name.isupper():
        return "constexpr"
    if name in INTEGERS:
        return "i32"
    if name in FLOATS:
        return "fp32"
    if name == "cu_seqlens":
        return "*i32"
    if (kernel, name) == ("_quantise", "out"):
        return "*fp8e4nv"
    return "*fp32" if name in FULL else f"*{dtype}"


def compile_all(capability: int, dtype: str) -> int:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from virnucpro_pl.models.encoders import kernels

    count = 0
    for name in ("_attend", "_add_layer_norm", "_gelu", "_gated_gelu", "_quantise"):
        kernel = getattr(kernels, name)
        parameters = list(inspect.signature(kernel.fn).parameters)
        signature = {parameter: kind(name, parameter, dtype) for parameter in parameters}
        for rotary, alibi in [(True, False), (False, True)] if name == "_attend" else [(False, False)]:
            values = {**CONSTANTS, "ROTARY": rotary, "ALIBI": alibi}
            constants = {parameter: values[parameter] for parameter in parameters if parameter.isupper()}
            source = ASTSource(kernel, signature, constexprs=constants)
            if name == "_quantise" and capability < 89:
                continue
            triton.compile(source, target=GPUTarget("cuda", capability, 32))
            count += 1
    return count


if __name__ == "__main__":
    print(compile_all(int(sys.argv[1]), sys.argv[2]))
