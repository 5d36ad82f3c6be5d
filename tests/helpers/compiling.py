"""Compiles the kernels for an H100 or H200 without needing one; prints how often each reads four numbers at once."""

import sys
from typing import Any

from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
from triton.compiler import ASTSource, compile  # noqa: A004 # pyright: ignore[reportMissingImports]

from sgcd.learn.scoring.logits import triton_kernel as kernel

TYPES = {"observed": "*i64", "size": "i32", "groups": "i32", "stride": "i32"}
TYPES |= dict.fromkeys(["inner", "outer", "slope"], "fp32")


def made(function: Any, **constants: object) -> str:
    types = {name: "constexpr" if name in constants else TYPES.get(name, "*fp32") for name in function.arg_names}
    even = [at for at, kind in enumerate(types.values()) if kind not in ("fp32", "constexpr")]
    source = ASTSource(function, types, constants, {(at,): [["tt.divisibility", 16]] for at in even})
    return compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": kernel.WARPS}).asm["ptx"]


for capped in (False, True):
    read = made(kernel._group_stats, CAPPED=capped, GROUP=kernel.GROUP, GROUPS=kernel.GROUPS)
    back = made(kernel._write_gradient, CAPPED=capped, COLUMNS=kernel.COLUMNS)
    sys.stdout.write(f"{read.count('ld.global.v4')} {back.count('ld.global.v4')} {back.count('st.global.v4')}\n")
