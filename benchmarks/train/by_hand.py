"""The limit: the loop one writes by hand for one network, all rows in memory, nothing else to do.

No permutation that others could share, no schedule, no validation, no checkpoints, no history.
"""

import time
from statistics import median

import torch

from app.data.encode import Examples
from app.model.network import Network
from app.spec import Train


def rows_per_second(network: Network, examples: Examples, settings: Train, device: torch.device) -> float:
    """Return the rows a second of the median one of `settings.epochs` passes."""
    network = network.to(device).train()
    number, category = (torch.tensor(matrix, device=device) for matrix in examples.features)
    target = torch.tensor(examples.target, device=device)
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    seconds = []
    for _ in range(settings.epochs):
        begin = time.perf_counter()
        for index in torch.randperm(len(target), device=device).split(settings.rows_of_step(len(target))):
            with half:
                logits = network(number[index], category[index])
            loss = network.loss(logits.float(), target[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
            optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - begin)
    return len(target) / median(seconds)
