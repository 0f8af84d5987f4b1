"""What a worker's GPU has to hold, part by part, before there is a GPU.

    weights          in the run's precision; ZeRO-3 shares them, and gathers up to LIVE of them at a time
    gradients        of what is trained; ZeRO-2 and 3 share them, ZeRO-1 where none are added up
    optimizer        float32 copy, two moments, the average: 12 or 16 bytes a weight, shared from ZeRO-1
    activations      what the backward pass needs, as `recompute` says
    backward         the largest gradients that are on their way at one time
    communication    the buckets in which gradients travel
    encoders         autoencoder, T5 and wav2vec 2.0, which every worker loads onto its GPU
    reserve          the GPU's context, NCCL, the allocator's gaps

Sizes are those of the tensors that autograd holds for `model/block.py`, counted in token vectors; the tests
compare them with tensors that are really held.
"""

from dataclasses import dataclass, field

from training.config import TrainConfig
from training.flops import Trained
from training.model.config import ModelConfig

MASTER, MOMENTS, AVERAGE = 4, 8, 4
"""Bytes a trained weight."""
LIVE = 1_000_000_000
"""Weights that ZeRO-3 holds whole at a time (DeepSpeed's stage3_max_live_parameters)."""
PREFETCHED = 50_000_000
"""and fetches ahead (stage3_prefetch_bucket_size)."""
CONTEXT_BYTES = 1.5e9
"""CUDA's context, NCCL's buffers and cuBLAS's workspace. An assumption: none was measured here."""
GAPS = 0.05
"""What the allocator loses between activations. An assumption too."""
AUTOENCODER_BYTES = 215_583_907 * 4
T5_BYTES = 4_762_310_656 * 2
WAV2VEC2_BYTES = 94_371_712 * 4
"""Of the published models in the precision they are loaded in: CogVideoX's, T5 v1.1-XXL's encoder, base."""
IN_FLIGHT = 9
"""Gradients of a feed-forward at a time: before and after its activation (4 + 4), and of the stream."""


@dataclass(frozen=True)
class Weights:
    """How many there are, and how many are trained."""

    total: int
    trained: int
    largest: int
    """Of one module: ZeRO-3 cannot hold less."""


@dataclass(frozen=True)
class Memory:
    """Bytes, by part."""

    gpu: dict[str, float]
    host: dict[str, float] = field(default_factory=dict)
    """Of one worker."""

    @property
    def gpu_bytes(self) -> float:
        return sum(self.gpu.values())

    @property
    def host_bytes(self) -> float:
        return sum(self.host.values())


def memory(config: TrainConfig, weights: Weights, trained: Trained) -> Memory:
    """Of one worker of the run, at the moment when it holds the most."""
    gpu, host = states(config, weights)
    size = _bytes_of(config)
    kept = activations(config.sizes, trained, config.recompute, size)
    shared = config.micro_batch / config.sequence_parallel
    gpu["activations"] = kept * shared
    gpu["backward"] = backward(config.sizes, size) * shared
    gpu["encoders"] = encoders(config)
    gpu["reserve"] = CONTEXT_BYTES + GAPS * (gpu["activations"] + gpu["backward"])
    return Memory(gpu, host)


def encoders(config: TrainConfig) -> float:
    """Bytes of the frozen models, not of what they hold while they compute. Small ones count as nothing."""
    named = config.encoders
    found = AUTOENCODER_BYTES if named.autoencoder else 0
    found += T5_BYTES if named.text != "none" else 0
    return found + (WAV2VEC2_BYTES if config.sizes.audio and named.speech == "wav2vec2" else 0)


def states(config: TrainConfig, weights: Weights) -> tuple[dict[str, float], dict[str, float]]:
    """What stays from step to step, and gradients with their buckets: on the GPU and in the host's memory."""
    zero, workers, size = config.deepspeed, config.num_workers, _bytes_of(config)
    stage = zero.zero_stage
    master = MASTER if stage else 0
    average = AVERAGE if config.optimizer.ema_decay is not None else 0
    optimizer = weights.trained * (master + MOMENTS + average) / (workers if stage else 1)
    whole = stage == 0 or (stage == 1 and config.accumulation > 1)  # ZeRO-1 shares them at the step
    gradients = weights.trained * size / (1 if whole else workers)
    own = weights.total * size / (workers if stage == 3 else 1)
    bucket = min(zero.bucket_mb * 1e6 / 4, weights.trained) * size if stage else 0
    gpu: dict[str, float] = {"weights": own, "gradients": gradients, "optimizer": optimizer}
    host: dict[str, float] = {}
    if zero.offload_optimizer:
        host["optimizer"] = gpu.pop("optimizer")
        host["gradients"] = weights.trained * MASTER / workers
        gpu["gradients"] = gradients if whole else 0
    if zero.offload_parameters:
        host["weights"] = gpu.pop("weights")
    if stage == 3:
        gathered = min(weights.total, max(LIVE, weights.largest) + PREFETCHED)
        gpu["gathered weights"] = gathered * size
        bucket *= 2  # one travels while the next is filled
    gpu["communication"] = bucket
    return gpu, host


def activations(config: ModelConfig, trained: Trained, recompute: str, size: int) -> float:
    """Bytes that the backward pass of one sample finds when it begins, and those that it makes again.

    Args:
        size: bytes a number.
    """
    patches, hidden, layers = config.patches_per_frame, config.hidden_size, config.num_layers
    bank = layers * patches * hidden * size
    networks = ["denoiser"]
    if any(name.startswith("reference.") for name in trained.names):
        networks.append("reference")
    held = again = 0.0
    for network in networks:
        whole, kept = _block(config, trained, network, size)
        first, _ = _block(config, trained, network, size, arrives=False)
        stream = _tokens(config, network) * hidden * size
        count = layers - (network == "reference")  # whose last block is not run
        each = {"nothing": whole, "all_but_attention": stream + kept, "blocks": stream}[recompute]
        held += (count - 1) * each + (first if recompute == "nothing" else each)
        again = max(again, 0 if recompute == "nothing" else whole - stream)
    last = config.latent_frames * patches * hidden * size
    return bank + held + again + 2 * last  # before the final norm, and before the head's


def backward(config: ModelConfig, size: int) -> float:
    """Bytes of the gradients that are on their way at one time."""
    return IN_FLIGHT * _tokens(config, "denoiser") * config.hidden_size * size


def _block(
    config: ModelConfig, trained: Trained, network: str, size: int, arrives: bool = True
) -> tuple[float, float]:
    """Bytes that one block's backward pass needs, and those among them that attention gave.

    Args:
        arrives: whether what the block is given asks for a gradient; not so in a network's first one.
    """
    hidden, heads = config.hidden_size, config.num_heads
    tokens = _tokens(config, network)
    video = tokens - config.text_length
    shown = config.patches_per_frame if network == "denoiser" else 0
    asks = _Asks(trained, f"{network}.blocks.0")
    modulated = asks("modulation")
    arrives = arrives or modulated

    vectors = tokens * (arrives + modulated)  # the stream; what the norm gives
    angles = sums = attended = 0.0
    if arrives or asks("attention.qkv"):
        vectors += tokens * asks("attention.qkv")  # attention's input
        vectors += 2 * tokens + shown  # queries and keys before their norms
        vectors += tokens + 2 * (tokens + shown)  # as attention takes them
        angles += 2 * tokens * config.head_dim * 4
    if arrives or asks("attention.qkv") or asks("attention.out"):
        vectors += tokens * (1 + modulated)  # what attention gives; what the gate is applied to
        sums += tokens * heads * 4
        attended += tokens * hidden * size + tokens * heads * 4
    arrives = arrives or asks("attention.qkv") or asks("attention.out")
    for name in ("face", "audio") if network == "denoiser" else ():
        own = f"{name}_attention"
        if (name == "audio" and config.audio is None) or not (arrives or asks(f"{own}.query")):
            continue
        vectors += video * (4 + asks(f"{own}.query"))  # stream, query twice, what attention gives; its input
        sums += video * heads * 4
        angles += config.patches_per_frame * config.head_dim * 4
        attended += video * hidden * size + video * heads * 4
        arrives = True
    if arrives:
        vectors += tokens * (1 + 2 * modulated + asks("feed_forward.0"))  # stream; norm, gate; its input
        vectors += tokens * (4 + 4 * asks("feed_forward.2"))  # before the activation, and behind it
    return vectors * hidden * size + angles + sums, attended


@dataclass(frozen=True)
class _Asks:
    """Whether a layer of a block is trained, or updates beside it are."""

    trained: Trained
    block: str

    def __call__(self, layer: str) -> bool:
        name = f"{self.block}.{layer}"
        return self.trained.weight(name) or self.trained.update(name)


def _tokens(config: ModelConfig, network: str) -> int:
    frames = config.latent_frames if network == "denoiser" else 1
    return config.text_length + frames * config.patches_per_frame


def _bytes_of(config: TrainConfig) -> int:
    return 2 if config.precision == "bf16" else 4
