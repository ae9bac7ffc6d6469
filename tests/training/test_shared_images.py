"""Which images count as being in both datasets."""

import pytest

from mrcnn.data.dataset import Dataset
from mrcnn.training.shared_images import refuse_shared_images


def dataset(*images):
    """A prepared dataset of (id, path)s."""
    made = Dataset()
    made.add_class("a", 1, "thing")
    for image_id, path in images:
        made.add_image("a", image_id, path=path)
    made.prepare()
    return made


@pytest.fixture
def files(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.jpg").touch()
    return [tmp_path / f"{i}.jpg" for i in range(6)]


def test_other_files_are_other_images_even_with_the_same_ids(files):
    training, validation = dataset((0, files[0]), (1, files[1])), dataset((0, files[2]), (1, files[3]))
    assert refuse_shared_images(training, validation) is None, "it would have raised"
    with pytest.raises(ValueError, match="2 of the 2 training images"):
        refuse_shared_images(training, dataset((0, files[0]), (1, files[1])))


@pytest.mark.parametrize("numbers", [(0, 1), (5, 7)])
def test_the_same_file_is_the_same_image_even_with_another_id(files, numbers):
    training = dataset(*((i, str(path)) for i, path in enumerate(files[:4])))
    validation = dataset((numbers[0], str(files[3])), (numbers[1], str(files[1])), (9, str(files[5])))
    with pytest.raises(
        ValueError, match=r"2 of the 4 training images are also among the 3 validation .*1.jpg.*allow_sh"
    ):
        refuse_shared_images(training, validation)


def test_links_and_detours_lead_to_the_same_file(files, tmp_path, monkeypatch):
    (tmp_path / "link.jpg").symlink_to(files[0])
    (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for path in ("link.jpg", "folder/0.jpg", "folder/folder/0.jpg", "0.jpg"):
        with pytest.raises(ValueError, match="1 of the 1 training images"):
            refuse_shared_images(dataset((0, files[0])), dataset((0, path)))


def test_frames_of_one_file_are_told_apart_by_their_ids(files):
    training = dataset((0, files[0]), (1, files[0]), (2, files[0]))
    refuse_shared_images(training, dataset((3, files[0]), (4, files[0])))
    with pytest.raises(ValueError, match="1 of the 3 training images"):
        refuse_shared_images(training, dataset((2, files[0]), (3, files[0])))


def test_without_files_only_one_object_shares_its_images():
    training = dataset((0, None), (1, "made up.jpg"))
    refuse_shared_images(training, dataset((0, None), (1, "made up.jpg")))
    with pytest.raises(ValueError, match="2 of the 2 training images are also among the 2 validation images"):
        refuse_shared_images(training, training)
