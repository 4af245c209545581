import numpy as np
import pytest

from caloforge.io.run import read_weights, write_weights

TENSORS = {
    name: np.arange(size, dtype=np.float32) for name, size in (("a", 30), ("b", 5), ("c", 30), ("d", 2))
}


def test_weights_above_a_limit_go_on_in_further_files(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_weights(path, TENSORS, limit=140)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "weights-2.safetensors"}
    found = read_weights(path)
    assert found.keys() == TENSORS.keys()
    assert all(np.array_equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_a_further_file_of_other_weights_is_refused(tmp_path):
    path, other = tmp_path / "weights.safetensors", tmp_path / "other.safetensors"
    write_weights(path, TENSORS, limit=140)
    write_weights(other, {name: tensor + 1 for name, tensor in TENSORS.items()}, limit=140)
    (tmp_path / "other-2.safetensors").replace(tmp_path / "weights-2.safetensors")
    with pytest.raises(ValueError, match=r"weights-2.safetensors must have the sha256 .*, got "):
        read_weights(path)
    (tmp_path / "weights-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there are no weights .*weights-2.safetensors"):
        read_weights(path)


def test_weights_within_the_limit_are_one_file(tmp_path):
    write_weights(tmp_path / "weights.safetensors", TENSORS, limit=10_000)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
