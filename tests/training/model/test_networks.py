"""The networks against what the public reference computed from the same weights (tests/golden/hallo3_net)."""

import json

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.training.golden_networks import NET, facts, fullgeo_inputs, golden_model, recorded
from training.model import PortraitModel
from training.model.backbone import timestep_sinusoid
from training.model.weights_map import to_upstream

TOLERANCE = 1e-5
STAGES = [pytest.param(name, stage, id=f"{name}-stage{stage}") for name in "ab" for stage in (1, 2)]


def close(got: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)


class Attended(TorchFunctionMode):
    """Queries and keys as they enter attention, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[Tensor] = []
        self.keys: list[Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function is torch.nn.functional.scaled_dot_product_attention:
            self.queries.append(args[0])
            self.keys.append(args[1])
        return function(*args, **(kwargs or {}))


class Outputs:
    """What the named modules returned last; text and video joined as upstream joins them."""

    def __init__(self, network: torch.nn.Module, *names: str):
        self.seen: dict[str, Tensor] = {}
        for name in names:
            network.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: self.seen.__setitem__(name, output)
            )

    def __getitem__(self, name: str) -> Tensor:
        output = self.seen[name]
        return torch.cat([output[0], output[1].flatten(1, 2)], 1) if isinstance(output, tuple) else output


def bank_of(model: PortraitModel, given: dict[str, Tensor]) -> list[Tensor]:
    return model.reference(given["in.ref_latent"], given["in.uncond_text"])


def forward(model: PortraitModel, given: dict[str, Tensor], **changed: object) -> Tensor:
    arguments: dict[str, object] = {
        "noisy": given["in.noisy_latent"],
        "timesteps": given["in.timesteps"],
        "text": given["in.text"],
        "image_condition": given["in.concat_latent"],
        "face": given["in.face"],
        "audio": given["in.audio"] if model.config.audio else None,
    }
    arguments |= changed
    if "reference" not in arguments:
        arguments["reference"] = bank_of(model, given)
    return model.denoiser(**arguments)


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_the_denoiser_gives_the_reference_s_output_and_what_is_on_the_way(name: str, stage: int) -> None:
    model, given = golden_model(name, stage), recorded(name)
    blocks = [f"blocks.{i}" for i in range(model.config.num_layers)]
    inside = ["blocks.0.attention", "blocks.0.face_attention", "blocks.0.feed_forward"]
    inside += ["blocks.0.audio_attention"] if stage == 2 else []
    outputs = Outputs(model.denoiser, *blocks, *inside)
    with torch.no_grad():
        close(forward(model, given), given[f"s{stage}.out"])
    for index, block in enumerate(blocks):
        close(outputs[block], given[f"s{stage}.layer.{index}.out"])
    tokens = outputs["blocks.0.attention"].shape[1]
    close(outputs["blocks.0.attention"], given[f"s{stage}.layer.0.attention.out"][:, :tokens])
    close(outputs["blocks.0.feed_forward"], given[f"s{stage}.layer.0.mlp.out"])
    for condition in ("face", "audio")[:stage]:
        wanted = given[f"s{stage}.layer.0.{condition}_attn.out"]
        close(outputs[f"blocks.0.{condition}_attention"].flatten(0, 1), wanted)


@pytest.mark.parametrize("name", ["a", "b"])
def test_queries_and_keys_enter_attention_as_the_reference_s_do(name: str) -> None:
    model, given = golden_model(name, 2), recorded(name)
    with torch.no_grad():
        bank = bank_of(model, given)
        with Attended() as seen:
            forward(model, given, reference=bank)
    queries = seen.queries[0].shape[2]
    close(seen.queries[0], given["net.layer.0.self.q"][:, :, :queries])
    close(seen.keys[0], given["net.layer.0.self.k"])
    frames = model.config.latent_frames
    face_queries = seen.queries[1].unflatten(2, (frames, -1)).transpose(1, 2).flatten(0, 1)
    close(face_queries, given["net.layer.0.face.q"])
    close(seen.keys[1].repeat_interleave(frames, 0), given["net.layer.0.face.k"])
    close(seen.queries[2], given["net.layer.0.audio.q"])
    close(seen.keys[2], given["net.layer.0.audio.k"])


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_reference_network_hands_over_what_the_reference_s_does(name: str) -> None:
    model, given = golden_model(name, 1), recorded(name)
    network = model.reference
    blocks = [f"blocks.{i}" for i in range(model.config.num_layers)]
    outputs = Outputs(network, *blocks)
    with torch.no_grad():
        with Attended() as seen:
            bank = bank_of(model, given)
        twice = torch.cat([given["in.ref_latent"]] * 2, dim=2)
        out = network.predict(twice, torch.zeros(1), network.embed_text(given["in.uncond_text"]))
    for index, feature in enumerate(bank):
        close(feature, given[f"ref.bank.{index}"])
    close(seen.queries[0], given["ref.layer.0.q"])
    close(seen.keys[0], given["ref.layer.0.k"])
    for index, block in enumerate(blocks):
        close(outputs[block], given[f"ref.layer.{index}.out"])
    close(out, given["ref.out"])


@pytest.mark.parametrize("name", ["a", "b"])
def test_tokens_enter_the_first_block_as_the_reference_s_do(name: str) -> None:
    model, given = golden_model(name, 2), recorded(name)
    denoiser, reference = model.denoiser, model.reference
    latents = torch.cat([given["in.noisy_latent"], given["in.concat_latent"]], dim=2)
    twice = torch.cat([given["in.ref_latent"]] * 2, dim=2)
    grid = model.config.patch_grid
    with torch.no_grad():
        for network, pixels, text, size, wanted in (
            (denoiser, latents, given["in.text"], grid, given["net.embeddings"]),
            (reference, twice, given["in.uncond_text"], (1, *grid[1:]), given["ref.embeddings"]),
        ):
            video = network.embed_video(pixels, size).flatten(1, 2)
            close(torch.cat([network.embed_text(text), video], dim=1), wanted)
        sinusoid = timestep_sinusoid(given["in.timesteps"], model.config.hidden_size)
        close(sinusoid, given["net.time_sinusoid"])
        close(denoiser.embed_time(given["in.timesteps"]), given["net.time_emb"])
        close(reference.embed_time(torch.zeros(1)), given["ref.time_emb"])
        close(denoiser.face_projector(given["in.face"]).flatten(1, 2), given["net.face_proj"])
        close(denoiser.audio_projector(given["in.audio"]), given["net.audio_proj"])
        close(denoiser.audio_projector(torch.zeros_like(given["in.audio"])), given["net.audio_proj_zero"])
    close(denoiser.rotary.cos, given["rotary.cos"])
    close(denoiser.rotary.sin, given["rotary.sin"])


@pytest.mark.parametrize("name", ["a", "b"])
def test_without_speech_or_portrait_the_output_is_still_the_reference_s(name: str) -> None:
    model, given = golden_model(name, 2), recorded(name)
    with torch.no_grad():
        unconditional = forward(
            model, given, text=given["in.uncond_text"], audio=torch.zeros_like(given["in.audio"])
        )
        nobody = model.reference(torch.zeros_like(given["in.ref_latent"]), given["in.uncond_text"])
        close(unconditional, given["s2.out_audio_zero"])
        close(forward(model, given, reference=nobody), given["s2.out_ref_zero"])


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_prepared_conditions_give_the_same_numbers(name: str, stage: int) -> None:
    model, given = golden_model(name, stage), recorded(name)
    with torch.no_grad():
        prepared = model.denoiser.prepare(
            given["in.text"],
            reference=bank_of(model, given),
            face=given["in.face"],
            audio=given["in.audio"] if stage == 2 else None,
        )
        out = model.denoiser.denoise(
            given["in.noisy_latent"], given["in.timesteps"], given["in.concat_latent"], prepared
        )
    close(out, given[f"s{stage}.out"])


@pytest.mark.parametrize("what", ["nothing", "all_but_attention", "blocks"])
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_gradients_are_the_reference_s(name: str, stage: int, what: str) -> None:
    model, given = golden_model(name, stage), recorded(name)
    model.recompute_in_backward(what)
    alpha = given["loss.sqrt_alpha"].view(-1, 1, 1, 1, 1)
    bank = model.reference(given["in.ref_latent"], given["in.text"])
    out = forward(
        model, given, noisy=given["loss.noised"], timesteps=given["loss.idx"].float(), reference=bank
    )
    close(out.detach(), given[f"loss.s{stage}.net_out"])
    estimate = alpha * given["loss.noised"] - (1 - alpha**2).sqrt() * out
    error = (estimate - given["in.clean_latent"]) ** 2 / (1 - alpha**2)
    close(error.detach().mean(dim=(1, 2, 3, 4)), given[f"loss.s{stage}.per_sample"])
    error.mean().backward()
    grads = {key: parameter.grad for key, parameter in model.named_parameters()}
    absent = {key: torch.zeros(0) if grad is None else grad for key, grad in grads.items()}
    by_name = to_upstream(absent)
    norms = json.loads((NET / f"{name}.grad_norms.json").read_text())[f"s{stage}"]
    for entry, norm in norms.items():
        if entry.endswith("position_embeddings.weight"):
            assert norm is None
        elif norm is None:
            assert by_name[entry].numel() == 0, entry
        else:
            assert by_name[entry].norm().item() == pytest.approx(norm, rel=1e-4), entry
    for key, wanted in given.items():
        if key.startswith(f"grad.s{stage}."):
            got = by_name[key.removeprefix(f"grad.s{stage}.")]
            assert (got - wanted).norm() <= 1e-4 * wanted.norm()


def test_at_the_true_latent_size_the_output_is_the_reference_s() -> None:
    given, inputs, model = recorded("fullgeo"), fullgeo_inputs(), golden_model("fullgeo", 2)
    for name, check in zip(facts("fullgeo")["input_check_order"], given["input_check"], strict=True):
        drawn = inputs[name].double()
        assert drawn.sum() == pytest.approx(float(check[0]), abs=1e-2)
        assert drawn.square().sum() == pytest.approx(float(check[1]), rel=1e-5)
    with torch.no_grad():
        bank = model.reference(inputs["ref"], inputs["uncond_text"])
        out = model.denoiser(
            inputs["x"],
            torch.tensor([facts("fullgeo")["timestep"]]),
            inputs["text"],
            image_condition=inputs["concat"],
            reference=bank,
            face=inputs["face"],
            audio=inputs["audio"],
        )
    close(bank[0][0, [0, 44, 45, 700, 1349]], given["bank.samples"])
    rows, columns = given["rows"].long(), given["cols"].long()
    close(out[0][:, :, rows][..., columns], given["out.samples"])
    close(out[0].mean(dim=(-2, -1)), given["out.frame_mean"])
