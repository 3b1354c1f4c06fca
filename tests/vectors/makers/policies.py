"""Policies of torch.distributions: categorical (logits [batch][n], actions from 0) and normal (mean and std [batch][n], independent,
summed over n), each with log_prob, entropy, the divergence kl to a second policy (other_*), and the gradient of
sum(log_prob * w + entropy * v + kl * u) for its parameters (d_*)."""
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from .vectorfile import rng_of


def save(out, name, op, policy, other, action, parameters, more):
    rng = rng_of(name + "/weights")
    w, v, u = (torch.tensor(rng.standard_normal(policy.batch_shape)) for _ in range(3))
    log_prob, entropy, kl = policy.log_prob(action), policy.entropy(), kl_divergence(policy, other)
    (log_prob * w + entropy * v + kl * u).sum().backward()
    tensors = {"action": action, "log_prob": log_prob, "entropy": entropy, "kl": kl, "w": w, "v": v, "u": u, **more}
    tensors.update(parameters)
    tensors.update({f"d_{key}": p.grad for key, p in parameters.items() if p.requires_grad})
    out.add(name, {"op": op, "source": "pytorch"}, {key: t.detach().numpy() for key, t in tensors.items()})


def make(out):
    for name, shape in (("categorical", (5, 4)), ("categorical_sequence", (2, 3, 6)), ("categorical_extreme", (4, 3))):
        rng = rng_of(name)
        scale = 40 if name.endswith("extreme") else 1.5
        logits = torch.tensor(rng.standard_normal(shape) * scale, requires_grad=True)
        other = torch.tensor(rng.standard_normal(shape))
        action = torch.tensor(rng.integers(0, shape[-1], shape[:-1]))
        save(out, name, "categorical", Categorical(logits=logits), Categorical(logits=other), action, {"logits": logits},
             {"other_logits": other})
    for name, shape in (("normal", (5, 3)), ("normal_sequence", (2, 4, 2))):
        rng = rng_of(name)
        mean = torch.tensor(rng.standard_normal(shape), requires_grad=True)
        std = torch.tensor(rng.uniform(0.2, 2, shape), requires_grad=True)
        other_mean, other_std = torch.tensor(rng.standard_normal(shape)), torch.tensor(rng.uniform(0.2, 2, shape))
        save(out, name, "normal", Independent(Normal(mean, std), 1), Independent(Normal(other_mean, other_std), 1),
             torch.tensor(rng.standard_normal(shape)), {"mean": mean, "std": std}, {"other_mean": other_mean, "other_std": other_std})
