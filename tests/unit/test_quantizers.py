"""Quantizers: specifications, codes, what they lose, their state, and states that were tampered with."""

import dataclasses
import itertools

import numpy as np
import pytest

import nearly
from nearly import _core
from nearly.quantizers import FITTED, QUANTIZERS, from_state

SPECS = [nearly.Scalar(bits, scale) for bits in (8, 4) for scale in ("global", "dimension", "vector")]
SPECS += [nearly.Reduced(), nearly.Reduced(dims=12), nearly.Reduced(dims=10, code=nearly.Scalar(4, "vector"))]
SPECS += [nearly.RaBitQ(bits) for bits in (1, 2, 5, 8)]
SPECS += [nearly.Transformed(nearly.Chain(nearly.Pca(12), nearly.Rotation()), nearly.RaBitQ(4))]
METRICS = ["l2", "cosine", "ip"]
# The largest share of the variance that codes of so many bits may lose.
LOSSES = {1: 0.4, 2: 0.14, 4: 0.06, 5: 0.01, 8: 0.01}


@pytest.fixture
def vectors(rng):
    """Return vectors that lie near a subspace of 10 dimensions."""
    axes = np.linalg.qr(rng.standard_normal((32, 10)))[0].T
    made = rng.standard_normal((600, 10)) @ axes + 0.02 * rng.standard_normal((600, 32))
    return np.asarray(made, np.float32)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_codes_stand_for_vectors(spec, metric, vectors):
    fitted = spec.fit(vectors, metric=metric)
    codes = fitted.encode(vectors)
    assert codes.shape == (600, fitted.row_bytes)
    assert codes.dtype == np.uint8
    assert fitted.encode(vectors[17:18]).tolist() == codes[17:18].tolist()  # a row's code is its own
    assert fitted.decode(codes).shape == vectors.shape
    error = fitted.error(vectors)
    assert error.n_vectors == 600
    assert 0 <= error.quantiles[0.5] <= error.quantiles[0.9] <= error.quantiles[0.99]
    bits = spec.code.bits if isinstance(spec, nearly.Reduced | nearly.Transformed) else spec.bits
    assert error.mean < LOSSES[bits]
    if metric == "l2":
        squares = ((fitted.decode(codes) - vectors) ** 2).sum(1).mean()
        spread = ((vectors - vectors.mean(0)) ** 2).sum(1).mean()
        assert error.mean == pytest.approx(squares / spread, rel=1e-3)


FINER = {
    **{
        f"scalar {scale}": [nearly.Scalar(bits, scale) for bits in (4, 8)]
        for scale in ("global", "dimension", "vector")
    },
    "reduced": [nearly.Reduced(dims=6), nearly.Reduced(dims=12)],
    "rabitq": [nearly.RaBitQ(bits) for bits in range(1, 9)],
}


@pytest.mark.parametrize("specs", FINER.values(), ids=FINER)
def test_more_bits_lose_less(specs, vectors):
    fitted = [spec.fit(vectors) for spec in specs]
    for low, high in itertools.pairwise(fitted):
        assert high.error(vectors).mean < low.error(vectors).mean
        assert high.row_bytes >= low.row_bytes


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_the_same_seed_gives_the_same_quantizer_and_its_state_gives_it_again(spec, metric, vectors):
    fitted, again = (spec.fit(vectors, metric=metric, seed=4) for _ in range(2))
    arrays, config = fitted.state()
    assert {name: a.tobytes() for name, a in arrays.items()} == {
        name: a.tobytes() for name, a in again.state()[0].items()
    }
    assert config == again.state()[1]
    loaded = from_state(arrays, config)
    assert loaded.encode(vectors).tobytes() == fitted.encode(vectors).tobytes()
    assert loaded.row_bytes == fitted.row_bytes


WRONG = {
    "dim": [0, -1, 33, 2**40, "x", None, 1e400], "dims": [0, -3, 13, 2**40, None], "bits": [0, 9, 16, -8, None],
    "metric": ["l1", "", None, 5], "norm_bound": ["x", None], "energy": ["x", None],
    "epsilon": [0, -1, "x", None, 1e300],
}  # fmt: skip


@pytest.mark.parametrize("spec", [nearly.Reduced(dims=12), nearly.RaBitQ(7)], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_hostile_states_are_refused(spec, metric, vectors):
    arrays, config = spec.fit(vectors, metric=metric).state()
    for name in arrays:
        for wrong in (arrays[name][:-1], np.append(arrays[name], arrays[name][-1:]), arrays[name].reshape(1, -1),
                      np.full(arrays[name].shape, np.nan), np.array("x")):  # fmt: skip
            if name == "matrix" and wrong.dtype.kind == "f":
                continue
            with pytest.raises(nearly.FormatError):
                from_state({**arrays, name: wrong}, config)
        with pytest.raises(nearly.FormatError):
            from_state({n: a for n, a in arrays.items() if n != name}, config)
    for name in config.keys() & WRONG.keys():
        for value in WRONG[name]:
            with pytest.raises(nearly.FormatError):
                from_state(arrays, {**config, name: value})
        with pytest.raises(nearly.FormatError):
            from_state(arrays, {n: v for n, v in config.items() if n != name})
    for wrong in (None, [], 5, "x"):
        with pytest.raises(nearly.FormatError):
            from_state(arrays, wrong)


def test_states_without_a_kind_are_scalar_codes_and_unknown_kinds_are_refused(vectors):
    arrays, config = nearly.Scalar().fit(vectors).state()
    assert config["kind"] in FITTED
    older = {name: value for name, value in config.items() if name != "kind"}
    assert from_state(arrays, older).encode(vectors).tobytes() == from_state(arrays, config).encode(vectors).tobytes()
    for kind in ("", "product2", None, 5, ["codes"]):
        with pytest.raises(nearly.FormatError, match="kind"):
            from_state(arrays, {**config, "kind": kind})


def test_specifications_are_values():
    assert nearly.Scalar() == nearly.Scalar(bits=8, scale="global")
    assert (
        len({nearly.Scalar(), nearly.Scalar(8), nearly.Scalar(4), nearly.Reduced(), nearly.Plain(), nearly.RaBitQ()})
        == 5
    )
    assert repr(nearly.Scalar(4, "vector")) == "Scalar(bits=4, scale='vector')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        nearly.Scalar().bits = 4
    assert set(QUANTIZERS) == {"plain", "scalar", "reduced", "rabitq", "transformed"}
    for make in (
        lambda: nearly.Scalar(bits=7), lambda: nearly.Scalar(bits=True), lambda: nearly.Scalar(scale="row"),
        lambda: nearly.Reduced(dims=0), lambda: nearly.Reduced(dims=2.5), lambda: nearly.Reduced(code="int8"),
        lambda: nearly.RaBitQ(bits=0), lambda: nearly.RaBitQ(bits=9), lambda: nearly.RaBitQ(bits=1.5),
        lambda: nearly.RaBitQ(epsilon=0), lambda: nearly.RaBitQ(epsilon="wide"),
    ):  # fmt: skip
        with pytest.raises(nearly.InputError):
            make()


def test_what_cannot_be_fitted_is_refused(vectors):
    for call in (
        lambda: nearly.Scalar().fit(vectors[:0]),
        lambda: nearly.Scalar().fit(vectors, metric="l1"),
        lambda: nearly.Scalar().fit(vectors, metric="hamming"),
        lambda: nearly.Scalar().fit(vectors, seed=-1),
        lambda: nearly.Scalar().fit(np.full((3, 4), np.nan, np.float32)),
        lambda: nearly.Reduced(dims=33).fit(vectors),
        lambda: nearly.Plain().fit(vectors),
        lambda: nearly.Scalar().fit(vectors).encode(vectors[:, :5]),
        lambda: nearly.Scalar().fit(vectors).decode(np.zeros((2, 3), np.uint8)),
        lambda: nearly.Scalar().fit(vectors).error(vectors[:0]),
    ):
        with pytest.raises(nearly.InputError):
            call()


@pytest.mark.parametrize(
    "spec", [*SPECS[:6], *SPECS[-5:-1], nearly.Transformed(nearly.Pca(), nearly.Scalar())], ids=str
)
def test_constant_and_single_vectors(spec):
    for constant in (np.zeros((5, 8), np.float32), np.full((5, 8), 3.5, np.float32), np.ones((1, 8), np.float32)):
        fitted = spec.fit(constant)
        np.testing.assert_allclose(fitted.decode(fitted.encode(constant)), constant, atol=1e-5)


def test_one_outlier_does_not_coarsen_the_rest(rng):
    vectors = rng.standard_normal((5000, 8), dtype=np.float32)
    vectors[17] *= 1000
    fitted = nearly.Scalar(8).fit(vectors)
    rest = np.delete(vectors, 17, axis=0)
    assert np.abs(fitted.decode(fitted.encode(rest)) - rest).mean() < 0.05


def test_reduced_keeps_what_varies(vectors):
    fitted = nearly.Reduced(dims=10).fit(vectors)
    assert fitted.energy > 0.98
    assert fitted.dims == 10
    assert nearly.Reduced(dims=2).fit(vectors).energy < 0.6


@pytest.mark.parametrize("power", [-60, -100, 55])
def test_axes_do_not_depend_on_the_size_of_numbers(vectors, power):
    expected = nearly.Reduced(dims=6).fit(vectors)
    fitted = nearly.Reduced(dims=6).fit(np.ldexp(vectors, power))  # squares beyond float32, or sums of them
    assert fitted.matrix.tobytes() == expected.matrix.tobytes()
    assert fitted.energy == expected.energy


def test_codes_of_rabitq_do_not_depend_on_threads_or_on_their_company(vectors):
    fitted = nearly.RaBitQ(5).fit(vectors)
    seen = []
    for threads in (1, 2, 5):
        table = _core.Table(fitted.row_bytes, len(vectors), len(vectors))
        fitted.scorer(table).encode(0, vectors, threads)
        seen.append(np.array(table.array()).tobytes())
    assert seen == [fitted.encode(vectors).tobytes()] * 3
    other = nearly.RaBitQ(5).fit(vectors, seed=1)
    assert other.encode(vectors).tobytes() != seen[0]
