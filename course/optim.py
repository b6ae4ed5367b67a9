"""SGD, momentum, RMSProp, Adam and AdamW from scratch; Adam on plain functions too.

All five are one loop, ``Optimizer.step``, and differ in ``direction``: where to go, given a
gradient g, what was remembered, and the number t of the step. Names of arguments, defaults and
numbers are those of torch.optim, so that either can stand in for the other. ``running_average``
is of the weights that they make.

``Adam`` is two things under one name, told apart by what it is given:

- ``Adam(model.parameters(), lr=1e-3)`` is an optimiser of tensors, as the four others;
- ``Adam(_func, _grad, _seed)``, with functions, is a ``Minimizer`` on numpy arrays:
  ``x = Adam(f, grad, start).get_solu()``, the form in which many tutorials print it.
"""

from array import array

import numpy as np
import torch

# ------------------------------------------------------------------ on tensors


class Optimizer:
    """Gradient descent, p ← p − lr · direction(g), for tensors p that have a gradient g.

    parameters    tensors, or dicts {"params": tensors, "lr": …} of groups with rates of their own
    lr            learning rate η; may be changed at any time: ``param_groups[k]["lr"]``
    weight_decay  λ of an L2 penalty ½λ‖p‖², whose gradient λp is added to g
    Raises ValueError for no parameters or a rate that is no positive number.
    """

    def __init__(self, parameters, lr, weight_decay=0.0):
        parameters = list(parameters)
        if not parameters:
            raise ValueError("There is nothing to optimise: the list of parameters is empty.")
        groups = parameters if isinstance(parameters[0], dict) else [{"params": parameters}]
        self.param_groups = [{"lr": lr, "weight_decay": weight_decay} | g for g in groups]
        self.state = {}  # of each tensor: how many steps, and what the method remembers
        for group in self.param_groups:
            group["params"] = list(group["params"])
            if not group["lr"] > 0 or not group["weight_decay"] >= 0:
                raise ValueError(f"The rate must be positive and the decay not negative, not "
                                 f"{group['lr']} and {group['weight_decay']}.")  # fmt: skip

    def zero_grad(self):
        """Forget the gradients: backward() adds to what is there."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.no_grad()
    def step(self):
        """Move every tensor that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                memory = self.state.setdefault(p, {"t": 0})
                memory["t"] += 1
                gradient = self.decay(p, p.grad, group)
                p.sub_(group["lr"] * self.direction(gradient, memory, memory["t"]))

    def decay(self, p, gradient, group):
        """The gradient with the penalty's: g + λp."""
        return gradient + group["weight_decay"] * p if group["weight_decay"] else gradient

    def direction(self, gradient, memory, t):
        raise NotImplementedError


def _running(memory, name, like):
    """A mean that a method keeps: zeros at first."""
    if name not in memory:
        memory[name] = torch.zeros_like(like)
    return memory[name]


class SGD(Optimizer):
    """direction = g (Robbins and Monro 1951). Stochastic by the batches that it is given."""

    def __init__(self, parameters, lr=1e-3, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)

    def direction(self, gradient, memory, t):
        return gradient


class Momentum(Optimizer):
    """u ← βu + g, direction = u (Polyak 1964): a ball that rolls. torch: SGD(momentum=β)."""

    def __init__(self, parameters, lr=1e-3, momentum=0.9, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)
        self.momentum = momentum

    def direction(self, gradient, memory, t):
        return _running(memory, "u", gradient).mul_(self.momentum).add_(gradient)


class RMSProp(Optimizer):
    """v ← αv + (1 − α)g², direction = g / (√v + ε) (Hinton 2012), each number by itself."""

    def __init__(self, parameters, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)
        self.alpha, self.eps = alpha, eps

    def direction(self, gradient, memory, t):
        v = _running(memory, "v", gradient)
        v.mul_(self.alpha).addcmul_(gradient, gradient, value=1 - self.alpha)
        return gradient / (v.sqrt() + self.eps)


class Adam(Optimizer):
    """m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², direction = m̂ / (√v̂ + ε) (Kingma and Ba 2015).

    m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ) undo that both began at zero. With functions instead of
    parameters, ``Adam(_func, _grad, _seed)`` is a ``Minimizer``.
    """

    def __new__(cls, parameters=None, *args, **options):
        if cls is Adam and (callable(parameters) or "_func" in options):
            if isinstance(parameters, torch.nn.Module):
                raise TypeError("Adam takes model.parameters(), not the model.")
            given = args if parameters is None else (parameters, *args)
            return Minimizer(*given, **options)
        return super().__new__(cls)

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)
        self.betas, self.eps = betas, eps

    def direction(self, gradient, memory, t):
        (beta1, beta2), m = self.betas, _running(memory, "m", gradient)
        v = _running(memory, "v", gradient)
        m.mul_(beta1).add_(gradient, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        return m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + self.eps)


class AdamW(Adam):
    """Adam whose decay goes past m and v (Loshchilov and Hutter 2019): p ← p − lr·λp, then Adam.

    In Adam, λp is divided by √v̂ as all of g is: what has large gradients hardly decays.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def decay(self, p, gradient, group):
        p.mul_(1 - group["lr"] * group["weight_decay"])
        return gradient


OPTIMIZERS = {"SGD": SGD, "momentum": Momentum, "RMSProp": RMSProp, "Adam": Adam, "AdamW": AdamW}


@torch.no_grad()
def running_average(average, model, step, decay=0.998, early=(0, 30)):
    """Move a running average of a model's weights: average ← d·average + (1 − d)·model.

    average and model have the same ``state_dict``; whole numbers in it are copied. d is ``decay``,
    but in the first steps (a + step) / (b + step) with (a, b) = ``early`` where that is smaller, so
    that the random start is soon forgotten; ``step`` counts from 1.
    """
    keep = min(decay, (early[0] + step) / (early[1] + step))
    new = model.state_dict()
    for name, old in average.state_dict().items():
        if old.is_floating_point():
            old.lerp_(new[name].to(old), 1 - keep)
        else:
            old.copy_(new[name])


# ------------------------------------------------------------------ on plain functions


class NotConverged(RuntimeError):
    """``get_solu`` did not come to rest; the path so far is kept."""


class Minimizer:
    """Adam on a plain function: ``Adam(_func, _grad, _seed)``.

    _func  x → J, a number · _grad  x → gradient, of x's shape · _seed  where to start, x's first
    value: an array of any shape, or a number
    """

    def __init__(self, _func, _grad, _seed):
        if not callable(_func) or not callable(_grad):
            raise TypeError("Adam(_func, _grad, _seed): the first two are functions of x.")
        self._func, self._grad = _func, _grad
        self._seed = np.array(_seed, dtype=float)
        self._x, self._J = array("d"), array("d")

    def get_solu(self, alpha=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8, zeta=1e-6,
                 maxIter=3000000):  # fmt: skip
        """The x where the gradient's norm is under ``zeta``; the path to it is kept (``get_path``).

        Raises NotConverged after ``maxIter`` steps or at the first number that is not finite, and
        ValueError where _grad's answer is not of x's shape, or maxIter negative.
        """
        if maxIter < 0:
            raise ValueError(f"maxIter is {maxIter}; it starts at 0.")
        x = self._seed.copy()
        m, v = np.zeros_like(x), np.zeros_like(x)
        self._x, self._J = array("d"), array("d")
        for t in range(maxIter + 1):
            J, g = float(self._func(x.copy())), np.asarray(self._grad(x.copy()), float)
            if g.shape != x.shape:
                raise ValueError(f"_grad returned shape {g.shape} for x of shape {x.shape}.")
            self._x.frombytes(x.tobytes())
            self._J.append(J)
            norm = float(np.linalg.norm(g))
            if not np.isfinite(norm) or not np.isfinite(J):
                raise NotConverged(f"Step {t}: J = {J:g}, gradient norm {norm:g}. Start elsewhere "
                                   "or lower alpha.")  # fmt: skip
            if norm < zeta:
                return x
            if t < maxIter:
                m = beta1 * m + (1 - beta1) * g
                v = beta2 * v + (1 - beta2) * g * g
                corrected = np.sqrt(v / (1 - beta2 ** (t + 1))) + epsilon
                x = x - alpha * (m / (1 - beta1 ** (t + 1))) / corrected
        raise NotConverged(f"Not converged after {maxIter} steps: gradient norm {norm:.3g}, zeta "
                           f"{zeta:g}. Raise maxIter or zeta, or change alpha.")  # fmt: skip

    def get_path(self):
        """x (n + 1, …) and J (n + 1,) of the last ``get_solu``, the start first."""
        return np.array(self._x).reshape(-1, *self._seed.shape), np.array(self._J)
