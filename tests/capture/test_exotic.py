"""Compiled, wrapped, sharded, quantised and unloaded models: seen as they are, or refused with the remedy.

`docs/exotic.md` has a row for each case here, and each row is checked.
"""

from __future__ import annotations

import copy
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.distributed.fsdp import fully_shard
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from vitreous.capture import compiled
from vitreous.capture.watch import Watched, watch_attention
from vitreous.errors import CaptureError, NumericError

pytestmark = [  # torch's own, about what it is asked for here
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning"),
]

TABLE = Path(__file__).parents[2] / "docs" / "exotic.md"
HEADS, TOKENS, DEPTH = 4, 17, 3
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Layer(nn.Module):
    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.qkv, self.out, self.attend = nn.Linear(32, 96), nn.Linear(32, 32), attend

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return tokens + self.out(self.attend(3 * q, k, v).transpose(1, 2).flatten(2))


class Net(nn.Module):
    """A ViT whose kernel can be chosen: (batch, heads, tokens, head_dim) each."""

    def __init__(self, *attend: Attend) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 32, 8, 8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 32))
        self.pos_embed = nn.Parameter(torch.randn(1, TOKENS, 32))
        self.layers = nn.ModuleList(map(Layer, attend or [F.scaled_dot_product_attention] * DEPTH))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.pos_embed
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


def run(model: Any, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return model(images)


def seen(model: Any, run: Callable[[Any], Tensor] = run) -> tuple[Watched, Tensor]:
    with watch_attention(model) as watched:
        output = run(model)
    return watched, output


@pytest.fixture(scope="module")
def eager() -> Watched:
    return seen(Net())[0]


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path_factory.mktemp('gloo')}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# --- stand-ins for packages that need a GPU: the same operators, arguments and orders of axes -------------------------


@torch.library.custom_op("flash_attn::_flash_attn_forward", mutates_args=())
def flash_operator(
    q: Tensor, k: Tensor, v: Tensor, dropout_p: float, softmax_scale: float, causal: bool, window: int, softcap: float
) -> tuple[Tensor, Tensor]:
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * softmax_scale
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    places = torch.arange(scores.shape[-1])
    scores = scores.masked_fill((places[:, None] - places).abs() > window, -math.inf) if window >= 0 else scores
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v), scores.logsumexp(-1)


class FlashFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        q, k, v, window, softcap = given
        scale = q.shape[-1] ** -0.5
        return torch.ops.flash_attn._flash_attn_forward(q, k, v, 0.0, scale, False, window=window, softcap=softcap)[0]


def flash_attn(window: int = -1, softcap: float = 0.0) -> Attend:
    def attend(*qkv: Tensor) -> Tensor:  # the package has tokens before heads
        q, k, v = (F.pad(tensor.transpose(1, 2), (0, 8)) for tensor in qkv)  # and widens heads to what it likes
        scaled = q * (q.shape[-1] / qkv[0].shape[-1]) ** 0.5
        return FlashFunction.apply(scaled, k, v, window, softcap)[..., : qkv[0].shape[-1]].transpose(1, 2)

    return attend


XFORMERS = torch.library.Library("xformers", "DEF")
XFORMERS.define("attention_forward(Tensor query, Tensor key, Tensor value, Tensor? attn_bias, float? scale) -> Tensor")
XFORMERS.define("flash_fwd(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, float softmax_scale) -> Tensor")


def cutlass(query: Tensor, key: Tensor, value: Tensor, attn_bias: Tensor | None, scale: float | None) -> Tensor:
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_bias, scale=scale).transpose(1, 2).contiguous()


def sequences(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, softmax_scale: float) -> Tensor:
    ends = cu_seqlens.tolist()
    parts = [
        cutlass(query[None, a:b], key[None, a:b], value[None, a:b], None, softmax_scale)[0]
        for a, b in itertools.pairwise(ends)
    ]
    return torch.cat(parts)


XFORMERS.impl("attention_forward", cutlass, "CompositeExplicitAutograd")
XFORMERS.impl("flash_fwd", sequences, "CompositeExplicitAutograd")


def xformers(*qkv: Tensor) -> Tensor:
    q, k, v = (tensor.transpose(1, 2) for tensor in qkv)
    return torch.ops.xformers.attention_forward(query=q, key=k, value=v, attn_bias=None, scale=None).transpose(1, 2)


def xformers_rows(*lengths: int) -> Attend:
    def attend(*qkv: Tensor) -> Tensor:
        q, k, v = (tensor.transpose(1, 2).flatten(0, 1) for tensor in qkv)
        ends = torch.tensor([0, *lengths]).cumsum(0)
        out = torch.ops.xformers.flash_fwd(q, k, v, ends, q.shape[-1] ** -0.5)
        return out.unflatten(0, (len(qkv[0]), -1)).transpose(1, 2)

    return attend


def unregistered(*qkv: Tensor) -> Tensor:
    """A kernel that torch does not know: nothing of it reaches a function mode."""
    with torch._C.DisableTorchFunction():
        return F.scaled_dot_product_attention(*qkv)


# --- the cases --------------------------------------------------------------------------------------------------------


def changed(change: Callable[[Net], Any]) -> nn.Module:
    """What a change makes of a model, or the model itself."""
    model = Net()
    return change(model) or model


def compile_blocks(model: Net) -> None:
    for index in range(DEPTH):
        model.layers[index] = torch.compile(model.layers[index], backend="eager")


def compile_function(model: Net) -> None:
    model.layers[1].attend = torch.compile(lambda *qkv: F.scaled_dot_product_attention(*qkv), backend="eager")


class Checkpointed(nn.Module):
    def __init__(self, layer: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.layer, self.reentrant = layer, reentrant

    def forward(self, tokens: Tensor) -> Tensor:
        return checkpoint(self.layer, tokens, use_reentrant=self.reentrant)


def checkpointed(reentrant: bool) -> Callable[[Net], None]:
    def change(model: Net) -> None:
        model.layers = nn.ModuleList(Checkpointed(layer, reentrant) for layer in model.layers)

    return change


class LowRank(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(32, 2), nn.Linear(2, 96)
        nn.init.zeros_(self.up.weight), nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.base(tokens) + self.up(self.down(tokens))


def adapt(model: Net) -> None:
    for layer in model.layers:
        layer.qkv = LowRank(layer.qkv)


def shard(model: Net) -> nn.Module:
    for part in (*model.layers, model.patch):
        fully_shard(part)
    return fully_shard(model, reshard_after_forward=True)


def norm_weights(model: Net) -> None:
    for layer in model.layers:
        weight_norm(layer.qkv)


def unload_layer(model: Net) -> None:
    model.layers[1].to("meta")


def quantized(model: Net) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def script_layer(model: Net) -> None:
    model.layers[1] = torch.jit.trace(model.layers[1], torch.randn(2, TOKENS, 32))


def graph_layer(model: Net) -> None:
    def make_graphed_callables() -> Any:  # as torch.cuda's, which needs a GPU
        return lambda tokens: tokens

    model.layers[1].forward = make_graphed_callables()


def fake() -> nn.Module:
    with FakeTensorMode():
        return Net()


def skip_layer(model: Net) -> None:
    model.layers[1].forward = lambda tokens: tokens


def with_backward(model: Any) -> Tensor:
    output = model(IMAGES)
    output.sum().backward()
    return output.detach()


def in_autocast(model: Any) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return run(model)


def in_inference(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(IMAGES)


def functionally(model: Any) -> Tensor:
    return torch.func.functional_call(model, dict(model.named_parameters()), (IMAGES,)).detach()


def each_image(model: Any) -> Tensor:
    return torch.func.vmap(lambda image: model(image[None]))(IMAGES)


def in_a_thread(model: Any) -> Tensor:
    thread = threading.Thread(target=run, args=(model,))
    thread.start()
    thread.join()
    return torch.empty(0)


def with_others(model: Any) -> Tensor:
    run(copy.deepcopy(model))
    output = run(model)
    run(copy.deepcopy(model))
    return output


def twice(model: Any) -> Tensor:
    run(model, IMAGES[:1])
    return run(model)


def soft_cap(score: Tensor, *_: Tensor) -> Tensor:
    return 20 * torch.tanh(score / 20)


def compiling(**options: Any) -> Callable[[], nn.Module]:
    return lambda: torch.compile(Net(), **options)


CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], Tensor]]] = {
    "torch.compile(model)": (compiling(backend="aot_eager"), run),
    "model.compile()": (lambda: changed(lambda m: m.compile(backend="eager")), run),
    "blocks compiled one by one": (lambda: changed(compile_blocks), run),
    "a compiled function in forward": (lambda: changed(compile_function), run),
    "torch.export, .module() of it": (lambda: torch.export.export(Net(), (IMAGES,)).module(), run),
    "torch.export, the program": (lambda: torch.export.export(Net(), (IMAGES,)), run),
    "torch.export, decomposed": (
        lambda: torch.export.export(Net(), (IMAGES,)).run_decompositions().module(),
        run,
    ),
    "torch.jit, whole": (lambda: torch.jit.trace(Net(), IMAGES), run),
    "torch.jit, one block": (lambda: changed(script_layer), run),
    "CUDA graphs (make_graphed_callables)": (lambda: changed(graph_layer), run),
    "flex_attention": (lambda: Net(*[flex_attention] * DEPTH), run),
    "flex_attention, compiled": (lambda: Net(*[torch.compile(flex_attention, backend="eager")] * DEPTH), run),
    "flex_attention with a soft cap": (lambda: Net(lambda *qkv: flex_attention(*qkv, score_mod=soft_cap)), run),
    "flash-attn": (lambda: Net(*[flash_attn()] * DEPTH), run),
    "flash-attn in some blocks": (lambda: Net(flash_attn(), F.scaled_dot_product_attention, flash_attn()), run),
    "flash-attn with a window": (lambda: Net(flash_attn(window=3)), run),
    "flash-attn with a soft cap": (lambda: Net(flash_attn(softcap=50.0)), run),
    "xformers": (lambda: Net(*[xformers] * DEPTH), run),
    "xformers, images in one row": (lambda: Net(*[xformers_rows(TOKENS, TOKENS)] * DEPTH), run),
    "xformers, crops of different sizes in one row": (lambda: Net(xformers_rows(10, 24)), run),
    "a kernel that torch does not know": (lambda: Net(unregistered), run),
    "such a kernel in some blocks": (
        lambda: Net(F.scaled_dot_product_attention, unregistered, F.scaled_dot_product_attention),
        run,
    ),
    "checkpointed blocks, reentrant": (lambda: changed(checkpointed(True)), run),
    "checkpointed blocks": (lambda: changed(checkpointed(False)), run),
    "checkpointed blocks, reentrant, with backward": (lambda: changed(checkpointed(True)), with_backward),
    "checkpointed blocks, with backward": (lambda: changed(checkpointed(False)), with_backward),
    "DistributedDataParallel": (lambda: changed(nn.parallel.DistributedDataParallel), run),
    "DistributedDataParallel, with backward": (lambda: changed(nn.parallel.DistributedDataParallel), with_backward),
    "DataParallel on one device": (lambda: changed(nn.DataParallel), run),
    "FSDP2 (fully_shard)": (lambda: changed(shard), run),
    "weight_norm": (lambda: changed(norm_weights), run),
    "LoRA": (lambda: changed(adapt), run),
    "torch.func.functional_call": (Net, functionally),
    "torch.func.vmap": (Net, each_image),
    "torch.inference_mode": (Net, in_inference),
    "autocast to bfloat16": (Net, in_autocast),
    "float16": (lambda: Net().half(), lambda model: run(model, IMAGES.half())),
    "bfloat16": (lambda: Net().bfloat16(), lambda model: run(model, IMAGES.bfloat16())),
    "int8 (quantize_dynamic)": (lambda: changed(quantized), run),
    "on the meta device": (lambda: Net().to("meta"), run),
    "partly on the meta device": (lambda: changed(unload_layer), run),
    "fake tensors": (fake, run),
    "training mode without dropout": (lambda: Net().train(), run),
    "a block that is skipped": (lambda: changed(skip_layer), run),
    "another model in the same watch": (Net, with_others),
    "two passes in one watch": (Net, twice),
    "a pass in another thread": (Net, in_a_thread),
    "no pass": (Net, lambda model: torch.empty(0)),
}

COARSE = {"autocast to bfloat16", "float16", "bfloat16", "int8 (quantize_dynamic)"}
FEWER = {"a block that is skipped": 2, "such a kernel in some blocks": 2}


def outcome(case: str, eager: Watched) -> tuple[str, str]:
    """("seen", note) or ("refused", message), after checking what was seen."""
    make, go = CASES[case]
    try:
        watched, output = seen(make(), go)
    except CaptureError as error:
        return "refused", "<br>".join(str(error).splitlines())
    assert len(watched.layers) == FEWER.get(case, DEPTH)
    atol = 0.05 if case in COARSE else 1e-5
    for layer, expected in zip(watched.layers, eager.layers[: 1 if case in FEWER else DEPTH], strict=False):
        torch.testing.assert_close(layer.dense().float(), expected.dense(), rtol=0, atol=atol)
    positions, expected_positions = watched.positions(), eager.positions()
    assert watched.layout == eager.layout and positions is not None and expected_positions is not None
    assert positions.name.removeprefix("module.") == "pos_embed"
    torch.testing.assert_close(positions.table.float(), expected_positions.table, rtol=0, atol=atol)
    assert watched.kernel is not None and eager.kernel is not None
    torch.testing.assert_close(watched.kernel.float(), eager.kernel, rtol=0, atol=atol)
    assert torch.equal(output, go(make())), "watched and unwatched give other bits"
    return "seen", "; ".join(watched.notes) or "-"


@pytest.mark.parametrize("case", CASES)
def test_an_exotic_model_is_seen_or_refused_as_the_table_says(case: str, eager: Watched) -> None:
    assert f"| {case} | {' | '.join(outcome(case, eager))} |" in TABLE.read_text("utf-8").splitlines()


def test_the_table_has_no_other_rows() -> None:
    rows = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]] == list(CASES)


# --- compiled parts ---------------------------------------------------------------------------------------------------


def stance() -> str:
    return torch._dynamo.eval_frame._stance.stance


@pytest.mark.parametrize("before", [False, True], ids=["not compiled yet", "compiled before"])
def test_what_was_compiled_stays_as_it_was(before: bool, eager: Watched) -> None:
    compiled_graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        compiled_graphs.append(1)
        return graph.forward

    torch._dynamo.reset()
    model = torch.compile(Net(), backend=backend)
    if before:
        run(model)
    count = len(compiled_graphs)
    watched, _ = seen(model)
    assert len(watched.layers) == DEPTH and watched.layout == eager.layout and stance() == "default"
    assert len(compiled_graphs) == count
    run(model)
    assert len(compiled_graphs) == (count or len(compiled_graphs)) and compiled_graphs


def test_the_compiler_comes_back_when_the_last_of_two_watches_closes() -> None:
    first, second = watch_attention(Net()), watch_attention(Net())
    for watch in (first, second):
        run(watch.__enter__()._model)
    assert stance() == "force_eager"
    second.__exit__(None, None, None)
    assert stance() == "force_eager"
    first.__exit__(None, None, None)
    assert stance() == "default" and not compiled._OPEN


def test_a_pass_that_fails_gives_the_compiler_back() -> None:
    with pytest.raises(RuntimeError), watch_attention(compiling(backend="eager")()) as watched:
        run(watched._model, torch.zeros(1))
    assert stance() == "default"


def test_torchs_native_layers_are_seen_in_a_compiled_model() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64).eval()
    nn.init.normal_(model.heads.head.weight)
    plain, expected = run(model), seen(model)[0]
    watched, output = seen(torch.compile(model, backend="eager"))
    assert torch.equal(plain, output)
    for layer, other in zip(watched.layers, expected.layers, strict=True):
        assert torch.equal(layer.dense(), other.dense())


# --- flex_attention ---------------------------------------------------------------------------------------------------

GENERATOR = torch.Generator().manual_seed(1)
SLOPES, RELATIVE = torch.rand(HEADS, generator=GENERATOR), torch.randn(HEADS, 2 * TOKENS, generator=GENERATOR)
WHOLE = torch.randn(2, HEADS, TOKENS, TOKENS, generator=GENERATOR)
PLACES = torch.arange(TOKENS)
APART = PLACES[:, None] - PLACES
NEAR = torch.zeros(TOKENS, TOKENS).masked_fill(APART.abs() > 3, -math.inf)
MASK = create_block_mask(lambda b, h, i, j: (i - j).abs() <= 3, None, None, TOKENS, TOKENS, "cpu", BLOCK_SIZE=TOKENS)


@pytest.mark.parametrize(
    ("options", "bias", "heads"),
    [
        ({"score_mod": lambda s, b, h, i, j: s - SLOPES[h] * (i - j).abs()}, -SLOPES[:, None, None] * APART.abs(), 4),
        ({"score_mod": lambda s, b, h, i, j: s + RELATIVE[h, i - j + TOKENS]}, RELATIVE[:, APART + TOKENS], 4),
        ({"score_mod": lambda s, b, h, i, j: s + WHOLE[b][h][i][j]}, WHOLE, 4),
        ({"score_mod": lambda s, b, h, i, j: torch.where((i - j).abs() <= 3, s, -math.inf)}, NEAR, 4),
        ({"block_mask": MASK}, NEAR, 4),
        ({"block_mask": MASK, "score_mod": lambda s, b, h, i, j: s + WHOLE[b, h, i, j]}, WHOLE + NEAR, 4),
        ({"return_lse": True}, None, 4),
        ({"enable_gqa": True}, None, 2),
    ],
    ids=["alibi", "relative", "table", "where", "mask", "mask and table", "lse", "grouped"],
)
@pytest.mark.filterwarnings("ignore:return_lse is deprecated:FutureWarning")
def test_score_and_mask_functions_become_a_bias(options: Any, bias: Tensor | None, heads: int) -> None:
    def flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = flex_attention(q, k[:, :heads], v[:, :heads], scale=0.5, **options)
        return output if isinstance(output, Tensor) else output[0]

    def spelled_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (tensor[:, :heads].repeat_interleave(HEADS // heads, 1) for tensor in (k, v))
        return ((q @ k.mT) * 0.5 + (0 if bias is None else bias)).softmax(-1) @ v

    model = Net(flex)
    watched, output = seen(model)
    assert torch.equal(output, run(model))
    torch.testing.assert_close(watched.layers[0].dense(), seen(Net(spelled_out))[0].layers[0].dense())


def test_transformers_with_flex_attention() -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **small)).eval()
    with torch.no_grad(), watch_attention(model) as expected:
        model(IMAGES)
    model.set_attn_implementation("flex_attention")
    with torch.no_grad(), watch_attention(model) as watched:
        model(IMAGES)
    assert watched.notes == [compiled.NOTE]
    for layer, other in zip(watched.layers, expected.layers, strict=True):
        torch.testing.assert_close(layer.dense(), other.dense())


# --- operators of other libraries -------------------------------------------------------------------------------------


def test_a_bias_given_to_an_operator_is_its_own() -> None:
    def attend(*qkv: Tensor) -> Tensor:
        q, k, v = (tensor.transpose(1, 2) for tensor in qkv)
        return torch.ops.xformers.attention_forward(q, k, v, WHOLE, 0.5).transpose(1, 2)

    watched, _ = seen(Net(attend))
    expected, _ = seen(Net(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, WHOLE, scale=0.5)))
    torch.testing.assert_close(watched.layers[0].dense(), expected.layers[0].dense())


def test_torchs_private_kernels_are_seen(eager: Watched) -> None:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    watched, _ = seen(Net(*[lambda *qkv: kernel(*qkv)[0]] * DEPTH))
    for layer, expected in zip(watched.layers, eager.layers, strict=True):
        assert torch.equal(layer.dense(), expected.dense())


@torch.library.custom_op("vitreous_test::layer_norm", mutates_args=())
def layer_norm_operator(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias)


@torch.library.custom_op("vitreous_test::gate", mutates_args=())
def gate_operator(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x * y + z


def test_other_operators_are_left_alone_and_named_where_they_could_be_attention() -> None:
    one = torch.ones(8)
    norm = torch.ops.vitreous_test.layer_norm
    watched, _ = seen(Net(lambda q, k, v: F.scaled_dot_product_attention(norm(q, one, one), k, v)))
    assert len(watched.layers) == 1 and watched.notes == []
    watched, _ = seen(Net(lambda q, k, v: F.scaled_dot_product_attention(torch.ops.vitreous_test.gate(q, q, q), k, v)))
    assert len(watched.layers) == 1 and len(watched.notes) == 1
    assert watched.notes[0].startswith("vitreous_test::gate got three tensors like queries, keys and values")


# --- the first image that fails ---------------------------------------------------------------------------------------


def test_nan_is_named_with_its_image() -> None:
    images = IMAGES.clone()
    images[1, 0, 0, 0] = math.nan
    with pytest.raises(NumericError, match="layer 0, image 1 of the batch: attention is NaN") as failure:
        seen(Net(), lambda model: run(model, images))
    assert failure.value.image == 1


def test_nan_that_comes_from_the_values_is_told_from_nan_in_attention() -> None:
    model = Net()
    with torch.no_grad():
        model.layers[1].qkv.bias[64:] = math.inf
    with pytest.raises(NumericError, match="layer 1: attention applied to values is NaN") as failure:
        seen(model)
    assert failure.value.image is None
