"""What a module has to be before it is read: a network without wrappers, whose weights are numbers that it has now."""

from __future__ import annotations

from typing import Any

from wsflow.exceptions import InvalidInputError

# wrappers that run one module as it is, and where they keep it
WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
}
QUANTIZED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.nn.quantized",
    "bitsandbytes.",
    "auto_gptq.",
    "gptqmodel.",
    "awq.",
    "optimum.quanto",
    "quanto.",
)
REMEDY = "Pass the network from before, with its weights in floating point."


def unwrapped(module: Any) -> Any:
    """Return the network inside of wrappers: data parallel, compiled, averaged."""
    while attribute := wrapped_attribute(module):
        module = getattr(module, attribute)
    return module


def wrapped_attribute(module: Any) -> str:
    """Return the name of the attribute that holds what a wrapper runs, or nothing for a module that is no wrapper."""
    kinds = (kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("torch."))
    return next((WRAPPERS[name] for name in kinds if name in WRAPPERS), "")


def check_readable(module: Any) -> None:
    """Refuse, with what to do, modules whose code or whose weights cannot be read: scripted, quantized, lazy, meta."""
    for name, layer in module.named_modules():
        where = f"The layer {name!r} ({type(layer).__name__})" if name else f"This {type(module).__name__}"
        if any(kind.__module__.startswith("torch.jit") for kind in type(layer).__mro__):
            raise InvalidInputError(
                f"{where} is compiled to TorchScript, which hides its operations. Pass the Python module that was "
                "scripted or traced; the state dict of this one, .state_dict(), fits it."
            )
        if type(layer).__module__.startswith(QUANTIZED):
            raise InvalidInputError(f"{where} is quantized: integers have no symmetries to be found. {REMEDY}")
        tensors = [*layer._parameters.items(), *layer._buffers.items()]
        for key, tensor in tensors:
            if tensor is not None:
                _check_tensor(f"{where} has the weight {key!r}, which", tensor)


def _check_tensor(which: str, tensor: Any) -> None:
    kind = type(tensor).__name__
    if kind.startswith("Uninitialized"):
        raise InvalidInputError(
            f"{which} has no shape yet, as the layer is lazy. Run the module once on an example, "
            "module(example_input), before it is read."
        )
    if kind == "DTensor":
        raise InvalidInputError(
            f"{which} is distributed over processes (a DTensor). Gather the weights first, with "
            "torch.distributed.checkpoint.state_dict.get_model_state_dict and full_state_dict=True."
        )
    if tensor.is_quantized or (str(tensor.dtype) in ("torch.uint8", "torch.int8") and hasattr(tensor, "quant_state")):
        raise InvalidInputError(f"{which} is quantized: integers have no symmetries to be found. {REMEDY}")
    if hasattr(type(tensor), "__tensor_flatten__"):
        raise InvalidInputError(f"{which} is a {kind}, a tensor of several tensors. {REMEDY}")
    if tensor.is_meta:
        raise InvalidInputError(
            f"{which} is on the meta device: it has a shape, but no numbers. Build the module on the CPU, or call "
            "module.to_empty(device='cpu') and load its state dict."
        )
    if tensor.is_complex() and tensor.requires_grad:
        raise InvalidInputError(
            f"{which} is complex. wsflow reads real weights: keep the real and the imaginary part as two parameters."
        )
