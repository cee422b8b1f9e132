"""Which layers the search keeps, on a search whose answers are known."""

from bench.layer_choice import Layers, narrowed, said


class KnownSearch:
    """A layer is worth its number; a set of layers the sum."""

    def worth(self, candidates):
        return [Layers(layers, {"a": (sum(layers), 0.0), "b": (0.0, 0.0)}) for layers in candidates]


def test_the_layers_that_are_missed_most_stay():
    assert [len(layers) for layers in narrowed(KnownSearch(), 30)] == [20, 15, 10, 8, 6, 4]
    assert list(narrowed(KnownSearch(), 30))[-1] == (26, 27, 28, 29)
    assert [len(layers) for layers in narrowed(KnownSearch(), 30, 15)] == [20, 15]


def test_another_depth_is_narrowed_in_proportion():
    assert [len(layers) for layers in narrowed(KnownSearch(), 6)] == [4, 3, 2, 2, 1, 1]


def test_runs_of_layers_are_said_together():
    assert said([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
