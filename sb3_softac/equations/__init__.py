"""
The equations of the papers as pure functions on tensors.

Each function stands for one equation and opens its docstring with the tag of that equation. Tensors come in, tensors
go out: no module, optimizer, logger or random number generator. Noise is an argument, and every stop-gradient is
visible in the function or named in its docstring. Leading dimensions are free unless a docstring says otherwise, but
tensors that are combined elementwise must have one and the same shape: ``[batch]`` against ``[batch, 1]`` would
broadcast to ``[batch, batch]`` without a word, so it is an error here.
"""
