from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vitreous.capture import blocked
from vitreous.capture.operator import AttentionOperator
from vitreous.errors import MemoryLimitError, ShapeError
from vitreous.tokens import TokenLayout


def make(dtype: torch.dtype = torch.float32, tokens: int = 23, size: float = 1.0, batch: int = 2) -> AttentionOperator:
    generator = torch.Generator().manual_seed(tokens)
    q, k = (size * torch.randn(batch, 3, tokens, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return AttentionOperator(q.to(dtype), k.to(dtype), 8**-0.5)


def by_hand(operator: AttentionOperator) -> Tensor:
    """(batch, heads, queries, keys) float64, by the equation: slow, dense, and nothing shared with the package."""
    assert operator.queries is not None and operator.keys is not None
    q, k = operator.queries.double(), operator.keys.double()
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * operator.scale
    if operator.bias is not None:
        scores = scores + operator.bias.double()
    exponentials = torch.exp(scores - scores.amax(-1, keepdim=True))
    return exponentials / exponentials.sum(-1, keepdim=True)


LAYOUT = TokenLayout(2, 3, 7, 16, 8, 0)


@pytest.fixture(params=["one block", "many blocks"])
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many blocks":
        monkeypatch.setitem(blocked.BLOCK_ELEMENTS, "cpu", 23 * 10)
        monkeypatch.setattr(blocked, "BLOCK_QUERIES", 5)


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("size", [1.0, 5.0], ids=["small scores", "scores that need their maximum taken out"])
@pytest.mark.parametrize("biased", [False, True])
def test_every_application_equals_the_dense_float64_matrix(size: float, biased: bool) -> None:
    plain = make(size=size)
    bias = torch.randn(1, 3, 23, 23, generator=torch.Generator().manual_seed(1)) if biased else None
    if bias is not None:
        bias[..., 4] = -math.inf  # a hidden key
    operator = AttentionOperator(plain.queries, plain.keys, plain.scale, bias)
    attention = by_hand(operator)
    costs = torch.zeros(23, 23, dtype=torch.float64)
    costs[2:, 2:] = LAYOUT.distances()
    values = torch.randn(2, 3, 23, 5, generator=torch.Generator().manual_seed(2))
    weights = torch.rand(2, 3, 23, generator=torch.Generator().manual_seed(3))

    found = operator.statistics(LAYOUT.token_distances, LAYOUT.prefix)
    logs = torch.where(attention > 0, attention, 1.0).log2()
    close(found.entropy, -(attention * logs).sum(-1))
    close(found.cost, (attention * costs).sum(-1))
    close(found.prefix_mass, attention[..., :2].sum(-1))
    close(found.rest_mass, attention[..., 2:].sum(-1))
    close(operator.expect(costs.float()), (attention * costs).sum(-1))
    close(operator.apply(values), attention @ values.double())
    close(operator.pull(weights), (weights.double()[:, :, None] @ attention)[:, :, 0])
    close(operator.pull(weights[:, :1]), (weights.double()[:, :1, None] @ attention)[:, :, 0])
    close(operator.rows([0, 22]), attention[:, :, [0, 22]])
    close(operator.dense(), attention)

    fresh = AttentionOperator(plain.queries, plain.keys, plain.scale, bias)
    fused = fresh.statistics(LAYOUT.token_distances, LAYOUT.prefix, pull=weights)
    close(fused.pulled, (weights.double()[:, :, None] @ attention)[:, :, 0])
    assert fused.cost is not None and found.cost is not None and torch.equal(fused.cost, found.cost)
    again = fresh.statistics(LAYOUT.token_distances, LAYOUT.prefix, pull=weights[:, :1])
    close(again.pulled, (weights.double()[:, :1, None] @ attention)[:, :, 0])


def close(found: Tensor | None, expected: Tensor) -> None:
    """Within 1e-5 of the largest value: the budget of the design for float32."""
    assert found is not None and found.dtype == torch.float32
    assert float((found.double() - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_float64_is_exact_to_float64_rounding() -> None:
    operator = make(torch.float64)
    attention = by_hand(operator)
    torch.testing.assert_close(operator.entropy(), -(attention * attention.log2()).sum(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_summed_in_float32(dtype: torch.dtype) -> None:
    operator = make(dtype)
    close(operator.entropy(), -(by_hand(operator) * by_hand(operator).log2()).sum(-1))


def test_autocast_does_not_reach_the_sums() -> None:
    operator = make()
    with torch.autocast("cpu", torch.bfloat16):
        close(operator.apply(torch.ones(2, 3, 23, 1)), torch.ones(2, 3, 23, 1).double())
        close(operator.dense(), by_hand(operator))


def test_weights_of_the_model_itself_give_the_same_answers() -> None:
    operator = make()
    weights = AttentionOperator(weights=operator.dense())
    ours = operator.statistics(LAYOUT.token_distances, 2)
    theirs = weights.statistics(LAYOUT.token_distances, 2)
    for name in ("entropy", "cost", "prefix_mass"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), rtol=1e-5, atol=1e-5)
    some = torch.rand(2, 3, 23)
    torch.testing.assert_close(weights.pull(some), operator.pull(some))


def test_a_weight_of_zero_adds_nothing_to_the_entropy() -> None:
    weights = torch.tensor([[[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]]])
    entropy = AttentionOperator(weights=weights).entropy()
    assert entropy.flatten().tolist() == pytest.approx([1.0, 0.0, math.log2(3)], abs=1e-6)


def test_uniform_attention_has_the_entropy_of_its_keys_and_the_mean_distance_of_the_grid() -> None:
    layout = TokenLayout(0, 14, 14, 16, 16)
    operator = AttentionOperator(torch.zeros(1, 2, 196, 4), torch.zeros(1, 2, 196, 4))
    found = operator.statistics(layout.token_distances)
    assert found.entropy.flatten().tolist() == pytest.approx([math.log2(196)] * 392, rel=1e-6)
    assert found.cost is not None
    assert float(found.cost.mean()) == pytest.approx(116.492, abs=1e-3)


def test_a_one_hot_row_is_pulled_without_the_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = make()
    one_hot = torch.zeros(2, 1, 23)
    one_hot[:, :, 7] = 1
    monkeypatch.setattr(blocked, "_blocks", lambda *_: pytest.fail("made more rows than were asked for"))
    close(operator.pull(one_hot), by_hand(operator)[:, :, 7])


def test_log_sum_exp_is_kept_from_the_first_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = make()
    assert operator.queries is not None and operator.keys is not None
    operator.entropy()
    monkeypatch.setattr(blocked, "statistics", lambda *_: pytest.fail("made a second pass"))
    scores = operator.queries.double() @ operator.keys.double().mT * operator.scale
    close(operator.log_sum_exp, scores.logsumexp(-1))


def test_a_rollouts_pass_makes_the_statistics_too(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = make()
    operator.statistics(LAYOUT.token_distances, LAYOUT.prefix, pull=torch.ones(2, 1, 23))
    monkeypatch.setattr(blocked, "_blocks", None)  # a second pass would fail
    assert operator.statistics(LAYOUT.token_distances, LAYOUT.prefix).cost is not None


def test_a_cost_that_looks_at_another_layer_does_not_spoil_the_buffers() -> None:
    one, other = make(), make(size=2.0)

    def cost(rows: slice) -> Tensor:
        other.pull(torch.rand(2, 3, 23))
        return torch.ones(23, 23)[rows]

    found = one.statistics(cost)
    torch.testing.assert_close(found.cost, torch.ones(2, 3, 23))
    close(found.entropy, -(by_hand(one) * by_hand(one).log2()).sum(-1))


def test_queries_of_a_strided_view_are_read_in_place() -> None:
    packed = torch.randn(2, 23, 3, 3, 8)
    q, k, _ = packed.permute(2, 0, 3, 1, 4).unbind(0)  # as a fused qkv projection gives them
    close(AttentionOperator(q, k, 8**-0.5).dense(), by_hand(AttentionOperator(q.contiguous(), k.contiguous(), 8**-0.5)))


def test_a_compact_operator_keeps_no_values_alive() -> None:
    q, k, _ = torch.randn(3, 2, 23, 3, 8).transpose(2, 3).unbind()
    compact = AttentionOperator(q, k, 0.5).compact()
    assert compact.queries is not None and compact.keys is not None
    assert torch.equal(compact.queries, q) and torch.equal(compact.keys, k)
    assert compact.queries.untyped_storage().nbytes() == q.nbytes
    alone = AttentionOperator(torch.randn(2, 23, 3, 8).transpose(1, 2), torch.randn(2, 1, 23, 8).expand(2, 3, 23, 8))
    assert alone.compact().queries is alone.queries and alone.compact().keys is alone.keys
    weights = AttentionOperator(weights=torch.ones(1, 1, 2, 2) / 2)
    assert weights.compact() is weights


def test_dense_refuses_more_than_its_limit_with_both_numbers() -> None:
    operator = AttentionOperator(torch.zeros(1, 12, 5000, 2), torch.zeros(1, 12, 5000, 2))
    with pytest.raises(MemoryLimitError, match=r"takes 1,144 MiB, the limit is 1,024 MiB"):
        operator.dense()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: o.apply(torch.zeros(2, 3, 22, 8)), r"not \(2, 3, 23, width\)"),
        (lambda o: o.pull(torch.zeros(2, 23)), r"not \(2, 3 or 1, 23\)"),
        (lambda o: o.statistics(pull=torch.zeros(2, 2, 23)), r"not \(2, 3 or 1, 23\)"),
        (lambda o: o.expect(torch.zeros(23, 22)), r"\(queries, keys\) are \(23, 23\)"),
        (lambda _: AttentionOperator(), "needs queries and keys, or weights"),
        (lambda _: AttentionOperator(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 5)), "are not"),
        (lambda _: AttentionOperator(weights=torch.zeros(2, 3, 3)), "not .batch, heads"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call(make())
