"""Quantizers: specifications, codes, what they lose, their state, and states that were tampered with."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

import nearly
from nearly import _core
from nearly.quantizers import FITTED, QUANTIZERS, from_state
from nearly.quantizers.specifications import describe, specified

SPECS = [nearly.Scalar(bits, scale) for bits in (8, 4) for scale in ("global", "dimension", "vector")]
SPECS += [nearly.Reduced(), nearly.Reduced(dims=12), nearly.Reduced(dims=10, code=nearly.Scalar(4, "vector"))]
SPECS += [nearly.RaBitQ(bits) for bits in (1, 2, 5, 8)]
SPECS += [nearly.SAQ(bits) for bits in (1.0, 2.5, 8.0)]
SPECS += [nearly.Product(), nearly.Product(7), nearly.Product(16, bits=4), nearly.Product(8, rotation="opq")]
SPECS += [nearly.Residual(4), nearly.Residual(12, bits=4, beam=2)]
SPECS += [nearly.Binary(rotation) for rotation in ("random", "itq", None)]
SPECS += [nearly.Transformed(nearly.Chain(nearly.Pca(12), nearly.Rotation()), nearly.RaBitQ(4))]
METRICS = ["l2", "cosine", "ip"]
# The largest share of the variance that codes of so many bits a dimension may lose.
LOSSES = {1: 0.4, 2: 0.14, 4: 0.06, 5: 0.01, 8: 0.01}


def allowed_loss(spec):
    """The largest share of the variance that codes may lose."""
    if isinstance(spec, nearly.Product | nearly.Residual):
        return 0.12
    if isinstance(spec, nearly.Binary):
        return LOSSES[1]
    if isinstance(spec, nearly.SAQ):
        return LOSSES[int(spec.bits)]
    return LOSSES[spec.code.bits if isinstance(spec, nearly.Reduced | nearly.Transformed) else spec.bits]


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
    assert error.mean < allowed_loss(spec)
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
    "saq": [nearly.SAQ(bits) for bits in range(1, 9)],
    "product": [nearly.Product(m) for m in (4, 8, 16)],
    "product of 4 bits": [nearly.Product(m, bits=4) for m in (8, 16, 32)],
    "residual": [nearly.Residual(levels) for levels in (1, 2, 4, 8)],
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
    "epsilon": [0, -1, "x", None, 1e300], "rounds": [-1, 101, "x", None], "beam": [0, -1, 257, "x", None],
    "books": [0, 2, 40, "x", None],
}  # fmt: skip


KINDS = [nearly.Reduced(dims=12), nearly.RaBitQ(7), nearly.SAQ(3.5), nearly.Product(4), nearly.Residual(3)]
KINDS += [nearly.Binary(None)]


@pytest.mark.parametrize("spec", KINDS, ids=str)
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
    assert set(QUANTIZERS) == {
        "plain", "scalar", "reduced", "rabitq", "saq", "product", "residual", "binary", "transformed"
    }  # fmt: skip
    for make in (
        lambda: nearly.Scalar(bits=7), lambda: nearly.Scalar(bits=True), lambda: nearly.Scalar(scale="row"),
        lambda: nearly.Reduced(dims=0), lambda: nearly.Reduced(dims=2.5), lambda: nearly.Reduced(code="int8"),
        lambda: nearly.RaBitQ(bits=0), lambda: nearly.RaBitQ(bits=9), lambda: nearly.RaBitQ(bits=1.5),
        lambda: nearly.Product(m=0), lambda: nearly.Product(bits=6), lambda: nearly.Product(rotation="random"),
        lambda: nearly.Residual(levels=0), lambda: nearly.Residual(257), lambda: nearly.Residual(bits=1),
        lambda: nearly.Residual(beam=0), lambda: nearly.Binary("opq"), lambda: nearly.Binary(rotation=True),
        lambda: nearly.Transformed(code=nearly.Binary()),
        lambda: nearly.Transformed(code=nearly.Product(rotation="opq")),
        lambda: nearly.SAQ(bits=0), lambda: nearly.SAQ(bits=8.5), lambda: nearly.SAQ(bits="4"),
        lambda: nearly.SAQ(epsilon=0), lambda: nearly.SAQ(rounds=-1), lambda: nearly.SAQ(rounds=1.5),
        lambda: nearly.Transformed(code=nearly.SAQ()),
        lambda: nearly.RaBitQ(epsilon=0), lambda: nearly.RaBitQ(epsilon="wide"),
    ):  # fmt: skip
        with pytest.raises(nearly.InputError):
            make()


@pytest.mark.parametrize("spec", [nearly.Plain(), *SPECS], ids=str)
def test_specifications_are_described_by_json_and_made_again(spec):
    assert specified(json.loads(json.dumps(describe(spec, QUANTIZERS))), QUANTIZERS) == spec


def test_specifications_that_cannot_be_are_refused_and_those_of_others_not_described():
    class Own(nearly.Scalar):
        """What somebody made."""

    assert describe(Own(), QUANTIZERS) is None
    assert describe(nearly.Transformed(code=Own()), QUANTIZERS) is None
    for config in (None, [], 5, {}, {"specification": "own"}, {"specification": ["scalar"]},
                   {"specification": "scalar", "bits": 7}, {"specification": "scalar", "wide": 1},
                   {"specification": "chain", "transforms": []}, {"specification": "chain"},
                   {"specification": "reduced", "code": {"specification": "pca"}},
                   {"specification": "saq", "bits": [3]}):  # fmt: skip
        with pytest.raises(nearly.FormatError):
            specified(config, QUANTIZERS)


@pytest.mark.parametrize("make", [nearly.Vamana, nearly.IVF, nearly.Flat])
def test_a_loaded_index_knows_how_its_codes_were_fitted(make, vectors, tmp_path):
    make(vectors, quantizer=nearly.SAQ(2.5), seed=1).save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a")
    assert (loaded._codes if make is nearly.IVF else loaded._travel).quantizer == nearly.SAQ(2.5)


def test_what_cannot_be_fitted_is_refused(vectors):
    for call in (
        lambda: nearly.Scalar().fit(vectors[:0]),
        lambda: nearly.Scalar().fit(vectors, metric="l1"),
        lambda: nearly.Scalar().fit(vectors, metric="hamming"),
        lambda: nearly.Scalar().fit(vectors, seed=-1),
        lambda: nearly.Scalar().fit(np.full((3, 4), np.nan, np.float32)),
        lambda: nearly.Reduced(dims=33).fit(vectors),
        lambda: nearly.Product(33).fit(vectors),
        lambda: nearly.SAQ(0.9).fit(vectors),  # less than a bit for the 64 dimensions that a code has at least
        lambda: nearly.Plain().fit(vectors),
        lambda: nearly.Scalar().fit(vectors).encode(vectors[:, :5]),
        lambda: nearly.Scalar().fit(vectors).decode(np.zeros((2, 3), np.uint8)),
        lambda: nearly.Scalar().fit(vectors).error(vectors[:0]),
    ):
        with pytest.raises(nearly.InputError):
            call()


@pytest.mark.parametrize(
    "spec",
    [*SPECS[:6], *SPECS[9:-1], nearly.Transformed(nearly.Pca(), nearly.Scalar())],
    ids=str,
)
def test_constant_and_single_vectors(spec):
    for constant in (np.zeros((5, 16), np.float32), np.full((5, 16), 3.5, np.float32), np.ones((1, 16), np.float32)):
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


@pytest.mark.parametrize("spec", [nearly.RaBitQ(5), nearly.SAQ(5)], ids=str)
def test_codes_with_bounds_do_not_depend_on_threads_or_on_their_company(spec, vectors):
    fitted = spec.fit(vectors)
    seen = []
    for threads in (1, 2, 5):
        table = _core.Table(fitted.row_bytes, len(vectors), len(vectors))
        fitted.scorer(table).encode(0, vectors, threads)
        seen.append(np.array(table.array()).tobytes())
    assert seen == [fitted.encode(vectors).tobytes()] * 3
    other = spec.fit(vectors, seed=1)
    assert other.encode(vectors).tobytes() != seen[0]


def test_by_default_codes_take_a_sixteenth_of_the_vectors(vectors):
    assert nearly.Product().fit(vectors).row_bytes == nearly.Product(bits=4).fit(vectors).row_bytes == 32 * 4 // 16


ADDITIVE = [nearly.Product(6), nearly.Product(6, rotation="opq"), nearly.Residual(3), nearly.SAQ(3)]
ADDITIVE += [nearly.Binary("itq")]


@pytest.mark.parametrize("spec", ADDITIVE, ids=str)
def test_what_is_learned_does_not_depend_on_threads(spec, rng):
    vectors = rng.standard_normal((900, 20), dtype=np.float32) @ rng.standard_normal((20, 20), dtype=np.float32)
    made = []
    for threads in (1, 2, 5):
        fitted = spec.fit_floats(vectors, metric="l2", norm_bound=0.0, seed=3, threads=threads)
        table = _core.Table(fitted.row_bytes, len(vectors), len(vectors))
        fitted.scorer(table).encode(0, vectors, threads)
        made.append((np.array(table.array()).tobytes(), {n: a.tobytes() for n, a in fitted.state()[0].items()}))
    assert made[0] == made[1] == made[2]
    other = spec.fit_floats(vectors, metric="l2", norm_bound=0.0, seed=4)
    assert other.encode(vectors).tobytes() != made[0][0]


def test_parts_are_coded_by_the_nearest_codeword_and_divide_the_coordinates(rng):
    vectors = rng.standard_normal((500, 13), dtype=np.float32)
    fitted = nearly.Product(5).fit(vectors)
    codes, residuals = fitted.encode(vectors), vectors.astype(np.float64) - fitted.center
    cuts = [part * 13 // 5 for part in range(6)]
    for part, (first, last) in enumerate(itertools.pairwise(cuts)):
        words = fitted.codewords[part, :, : last - first].astype(np.float64)
        squares = ((residuals[:, None, first:last] - words) ** 2).sum(axis=2)
        np.testing.assert_allclose(squares[np.arange(500), codes[:, part]], squares.min(axis=1), atol=1e-5)


def decaying(rng, n, dim=64):
    """Correlated normal vectors whose spread falls from axis to axis."""
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return ((rng.standard_normal((n, dim)) * np.exp(-np.arange(dim) / 8)) @ axes).astype(np.float32)


def test_opq_and_residuals_lose_less_than_product_where_coordinates_depend_on_each_other(rng):
    vectors = decaying(rng, 6000)
    plain, turned, residual = (
        spec.fit(vectors).error(vectors).mean
        for spec in (nearly.Product(8, bits=4), nearly.Product(8, bits=4, rotation="opq"), nearly.Residual(8, bits=4))
    )
    assert turned < 0.6 * plain
    assert residual < 0.6 * plain


def test_a_learned_rotation_brings_signs_nearer_than_a_random_one(rng):
    vectors = np.sign(rng.standard_normal((2000, 16))) @ np.linalg.qr(rng.standard_normal((16, 16)))[0]
    # Near the corners of a turned cube.
    vectors = (vectors + 0.1 * rng.standard_normal(vectors.shape)).astype(np.float32)
    learned, drawn = (nearly.Binary(rotation).fit(vectors).error(vectors).mean for rotation in ("itq", None))
    assert learned < 0.1
    assert drawn > 0.25


def test_neighbors_are_among_those_whose_signs_agree_most(rng):
    vectors = decaying(rng, 2000)
    queries = vectors[:40] + 0.02 * rng.standard_normal((40, 64)).astype(np.float32)
    for rotation in ("random", "itq"):
        fitted = nearly.Binary(rotation).fit(vectors)
        codes = np.unpackbits(fitted.encode(vectors), axis=1)
        apart = (np.unpackbits(fitted.encode(queries), axis=1)[:, None] != codes).sum(axis=2)
        rank = np.array([(apart[i] < apart[i, i]).sum() for i in range(40)])
        assert np.median(rank) < 20
