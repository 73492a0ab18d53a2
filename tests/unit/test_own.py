"""Datasets of one's own: right bytes and labels in each format, or one line with the file, the first record and the remedy."""

import gzip
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from privset import PrivsetError
from privset.data import datasets, own, sources
from privset.data.idx import write_idx

OWN = {
    "channels": 3,
    "size": 8,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "class_names": ["left", "right"],
}


def write_own(folder, format, images, labels):
    """The same images in each of the three formats; the path to configure."""
    folder.mkdir()
    match format:
        case "npz":
            np.savez(folder / "part.npz", images=images, labels=labels)
            return folder / "part.npz"
        case "idx":
            (folder / "part-images-idx3-ubyte").write_bytes(write_idx(images))
            (folder / "part-labels-idx1-ubyte.gz").write_bytes(gzip.compress(write_idx(labels)))
            return folder / "part"
        case "imagefolder":
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = folder / OWN["class_names"][label] / f"{index:03d}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(image).save(path)
            return folder


@pytest.mark.parametrize("format", ["npz", "idx", "imagefolder"])
def test_a_dataset_of_ones_own_in_each_format(format, tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    labels = np.array([0, 0, 0, 1, 1, 1], dtype=np.uint8)
    paths = {part: str(write_own(tmp_path / part, format, images, labels)) for part in ("train", "test")}
    own = {"mine": {**OWN, **paths, "format": format}}
    sources.fetch("mine", tmp_path / "out", sources=[], directory=None, timeout=1, own=own, log=lambda line: None)
    loaded, loaded_labels = datasets.load(tmp_path / "out", train=True)
    assert loaded_labels.tolist() == labels.tolist()
    assert np.allclose(loaded, images.transpose(0, 3, 1, 2) / 255)
    known = datasets.describe(tmp_path / "out")
    assert (known.class_names, known.augmentation, known.mean) == (("left", "right"), "none", (0.5, 0.5, 0.5))


def fetched(tmp_path, **block):
    """The training half of a dataset of one's own, and the log; the test half is a good one unless the block says otherwise."""
    if "test" not in block:
        shape = (2, block.get("size", 8), block.get("size", 8), *((3,) if block.get("channels", 3) == 3 else ()))
        np.savez(tmp_path / "good.npz", images=np.zeros(shape, np.uint8), labels=[0, 1])
        if block["format"] == "imagefolder":
            for index, name in enumerate(block.get("class_names", OWN["class_names"])):
                (tmp_path / "good" / name).mkdir(parents=True)
                Image.fromarray(np.zeros(shape[1:], np.uint8)).save(tmp_path / "good" / name / f"{index}.png")
        block["test"] = str(tmp_path / ("good" if block["format"] == "imagefolder" else "good.npz"))
    lines = []
    block = {**OWN, **({"mean": [0.5], "std": [0.2]} if block.get("channels") == 1 else {}), **block}
    sources.fetch("mine", tmp_path / "out", sources=[], directory=None, timeout=1, own={"mine": block}, log=lines.append)
    return *datasets.load(tmp_path / "out", train=True), lines


def refused(tmp_path, **block):
    """The one line with which it is refused; nothing is written."""
    with pytest.raises(PrivsetError) as error:
        fetched(tmp_path, **block)
    message = str(error.value)
    assert "\n" not in message and "data.dir" not in message and not (tmp_path / "out").exists()
    if not message.startswith("dataset mine: "):  # the block itself
        assert message.startswith("datasets.mine: ")
    return message


def npz(tmp_path, **arrays):
    path = tmp_path / "train.npz"
    np.savez(path, **{"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": np.array([0, 1, 0, 1]), **arrays})
    return {"format": "npz", "train": str(path)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": 9}, r"images have shape (4, 8, 8, 3); expected (N, 9, 9, 3)"),
        ({"channels": 1, "mean": [0.5], "std": [0.2]}, "images have shape (4, 8, 8, 3); expected (N, 8, 8)"),
        ({"class_names": ["left"]}, "labels[1] = 1; expected whole numbers from 0 to 0"),
        ({"class_names": list(map(str, range(257)))}, "257 class_names; labels are bytes"),
        ({"class_names": ["left", "right", "left"]}, "class_names has 'left' twice"),
        ({"mean": [0.5]}, "mean needs one number for each of 3 channel"),
        ({"train": "nowhere.npz"}, "nowhere.npz cannot be read: No such file"),
        ({"format": "idx", "train": "part"}, "no part-images-idx3-ubyte or .gz"),
        ({"format": "imagefolder", "train": "nowhere"}, "no images in nowhere/left"),
    ],
)
def test_a_mistake_in_the_block_is_named(change, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert reason in refused(tmp_path, **{**npz(tmp_path), "test": "good", **change})


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.eye(2)[[0, 1, 0, 1]], "labels have shape (4, 2), labels[0] = [1.0, 0.0]; expected one number for each image"),
        (np.array([[0, 1, 0, 1]]), "labels have shape (1, 4), labels[0] = [0, 1, 0, 1]"),
        (np.array(1), "labels have shape (), labels[0] = [1]"),
        (np.array([0, 1, 0.9, np.nan]), "labels[2] = 0.9; expected whole numbers from 0 to 1, the places in class_names"),
        (np.array([0, np.nan, 0, 1]), "labels[1] = nan"),
        (np.array([0, np.inf, 0, 1]), "labels[1] = inf"),
        (np.array([0, 1, 256, 257]), "labels[2] = 256"),
        (np.array([0, 1, 0, 257], np.uint16), "labels[3] = 257"),
        (np.array([0, 1, 0, 2**63], np.uint64), "labels[3] = 9223372036854775808"),
        (np.array([0, -1, 0, 1]), "labels[1] = -1"),
        (np.array([0, -1, 0, 1], np.float16), "labels[1] = -1.0"),
        (np.array(["left", "right"] * 2), "labels[0] = 'left'; expected whole numbers from 0 to 1"),
        (np.array([0j] * 4), "labels[0] = 0j"),
        (np.array([0, 1, 0, 1, 1, 0]), "4 images and 6 labels; labels[4] = 1 has no image"),
        (np.array([0, 1, 0]), "4 images and 3 labels; images[3] has no label"),
        (np.array([]), "4 images and 0 labels; images[0] has no label"),
        (np.array([0, 1, None, 1]), "labels in {path} cannot be read: Object arrays cannot be loaded"),
    ],
)
def test_labels_that_are_not_a_class_each_are_refused_at_the_first(labels, reason, tmp_path):
    block = npz(tmp_path, labels=labels)
    message = refused(tmp_path, **block)
    assert reason.format(path=block["train"]) in message and block["train"] in message


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[0], [1], [1], [0]]),
        np.array([0.0, 1.0, 1.0, 0.0]),
        np.array([False, True, True, False]),
        np.array([0, 1, 1, 0], np.int8),
        np.array([0, 1, 1, 0], np.uint64),
    ],
)
def test_labels_that_can_mean_one_thing_only_are_taken(labels, tmp_path):
    assert fetched(tmp_path, **npz(tmp_path, labels=labels))[1].tolist() == [0, 1, 1, 0]


def test_the_last_of_256_classes_is_a_class(tmp_path):
    names = [f"class {place}" for place in range(256)]
    assert fetched(tmp_path, **npz(tmp_path, labels=[0, 255, 1, 254]), class_names=names)[1].tolist() == [0, 255, 1, 254]


GREY = np.zeros((4, 8, 8))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (GREY + 1.0, "images are float64, 1.0 to 1.0; expected uint8, 0 to 255: np.round(255 * images).astype(np.uint8)"),
        (GREY.astype(np.uint16) + 4095, "images are uint16, 4095 to 4095; expected uint8, 0 to 255: images.astype(np.uint8)"),
        (GREY.astype(np.int64) - 1, "images are int64, -1 to -1"),
        (GREY.astype(bool), "images are bool, False to False; expected uint8, 0 to 255: 255 * images.astype(np.uint8)"),
        (GREY.astype("U1"), "images are <U1; expected uint8"),
        (np.where(np.arange(4) == 2, np.nan, GREY.T).T, "images[2] has the pixel nan"),
        (np.where(np.arange(4) > 1, np.inf, GREY.T).T.astype(np.float32), "images[2] has the pixel inf"),
        (GREY.astype(np.uint8)[:, None], "images have shape (4, 1, 8, 8); expected (N, 8, 8)"),
        (GREY.astype(np.uint8).reshape(4, 64), "images have shape (4, 64)"),
        (GREY.astype(np.uint8)[:0], "images have shape (0, 8, 8); expected (N, 8, 8), N > 0"),
        (np.array(0, np.uint8), "images have shape ()"),
        (GREY.astype(object), "images in {path} cannot be read: Object arrays cannot be loaded"),
    ],
)
def test_pixels_whose_white_is_not_certain_are_refused(images, reason, tmp_path):
    block = npz(tmp_path, images=images)
    assert reason.format(path=block["train"]) in refused(tmp_path, **block, channels=1)


def test_a_trailing_axis_of_one_is_no_mistake(tmp_path):
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    loaded = fetched(tmp_path, **npz(tmp_path, images=images), channels=1)[0]
    assert np.array_equal((255 * loaded).round().ravel(), np.arange(256))


def test_broken_archives_and_idx_files_are_named(tmp_path):
    block = npz(tmp_path)
    path = tmp_path / "train.npz"
    whole = path.read_bytes()
    for content, reason in [(whole[:200], "train.npz cannot be read: "), (b"", "train.npz cannot be read: No data left in file")]:
        path.write_bytes(content)
        assert reason in refused(tmp_path, **block)
    flipped = bytearray(whole)
    flipped[whole.index(b"labels.npy") + 140] ^= 1
    path.write_bytes(flipped)
    assert f"labels in {path} cannot be read: Bad CRC-32" in refused(tmp_path, **block)
    np.savez(path, x=np.zeros(3))
    assert "has arrays x, and no images and no labels" in refused(tmp_path, **block)
    with open(path, "wb") as stream:
        np.save(stream, np.zeros(3))
    assert "is one array; save an archive" in refused(tmp_path, **block)
    images, labels = write_idx(np.zeros((4, 8, 8, 3), np.uint8)), write_idx(np.zeros(4, np.uint8))
    (tmp_path / "part-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "part-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels)[:-9])
    block = {"format": "idx", "train": str(tmp_path / "part")}
    assert "part-labels-idx1-ubyte.gz cannot be read: Compressed file ended" in refused(tmp_path, **block)
    (tmp_path / "part-images-idx3-ubyte").write_bytes(images[:-1])
    assert "part-images-idx3-ubyte cannot be read: IDX header announces" in refused(tmp_path, **block)


# ---------------------------------------------------------------------------------------------------------- image folders

RAMP = (np.arange(64, dtype=np.uint8) * 4 + 3).reshape(8, 8)
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)


def folder(tmp_path, image, name="x.png", **options):
    """A folder whose class `left` has the image (Pillow's, or a file's bytes), and `right` a black one."""
    for part in OWN["class_names"]:
        (tmp_path / "train" / part).mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(tmp_path / "train" / "right" / "black.png")
    file = tmp_path / "train" / "left" / name
    if isinstance(image, bytes):
        file.write_bytes(image)
    else:
        image.save(file, **options)
    return {"format": "imagefolder", "train": str(tmp_path / "train")}


def png(depth, kind, rows):
    """PNG bytes of rows of pixels as they are stored; Pillow writes no 16-bit colour."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 8, depth, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(rows))),
        (b"IEND", b""),
    ]
    made = [struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)) for tag, body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def sixteen(pixels, kind):
    return png(16, kind, [b"\0" + row.astype(">u2").tobytes() for row in pixels * np.uint16(257)])


def palette(pixels):
    image = Image.fromarray(pixels, "P")
    image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    return image


OPAQUE = Image.new("L", (8, 8), 255)
GREYS = {
    "L": (Image.fromarray(RAMP), "png"),
    "I;16": (Image.fromarray(RAMP * np.uint16(257)), "png"),
    "I;16 without lower bits": (Image.fromarray(RAMP * np.uint16(256)), "png"),
    "I;16B": (Image.fromarray((RAMP * np.uint16(257)).astype(">u2")), "tif"),
    "16-bit RGB": (sixteen(np.stack([RAMP] * 3, axis=2), 2), "png"),
    "P": (palette(RAMP), "png"),
    "RGB": (Image.fromarray(RAMP).convert("RGB"), "png"),
    "LA": (Image.merge("LA", (Image.fromarray(RAMP), OPAQUE)), "png"),
    "PA": (palette(RAMP).convert("PA"), "tif"),
    "RGBA": (Image.fromarray(RAMP).convert("RGBA"), "png"),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", GREYS)
def test_the_same_ramp_in_any_mode_has_the_same_pixels(kind, channels, tmp_path):
    image, suffix = GREYS[kind]
    images, labels, _ = fetched(tmp_path, **folder(tmp_path, image, f"x.{suffix}"), channels=channels)
    assert labels.tolist() == [0, 1]
    assert np.array_equal((255 * images[0]).round(), np.stack([RAMP] * channels))


def test_black_and_white_and_few_bits_reach_from_black_to_white(tmp_path):
    dots = RAMP > 100
    images, *_ = fetched(tmp_path, **folder(tmp_path, Image.fromarray(dots)), channels=1)
    assert np.array_equal(images[0, 0], dots)
    rows = [b"\0" + bytes([0x1B, 0xE4])] * 8  # two bits: 0 1 2 3 3 2 1 0
    (tmp_path / "two").mkdir()
    images, *_ = fetched(tmp_path / "two", **folder(tmp_path / "two", png(2, 0, rows)), channels=1)
    assert (255 * images[0, 0]).round().tolist() == [[0, 85, 170, 255, 255, 170, 85, 0]] * 8


def test_a_camera_that_lay_on_its_side_is_turned_upright(tmp_path):
    """EXIF orientation 6: what is stored must be turned clockwise, as viewers do."""
    sideways = Image.Exif()
    sideways[0x0112] = 6
    images, *_ = fetched(tmp_path, **folder(tmp_path, Image.fromarray(RAMP), exif=sideways), channels=1)
    assert np.array_equal((255 * images[0, 0]).round(), np.rot90(RAMP, -1))


@pytest.mark.parametrize("image", [Image.fromarray(COLOURS), sixteen(COLOURS, 2), Image.fromarray(COLOURS).convert("RGBA")])
def test_colours_stay_what_they_are_and_grey_is_their_luma(image, tmp_path):
    images, *_ = fetched(tmp_path, **folder(tmp_path, image))
    assert np.array_equal((255 * images[0]).round(), COLOURS.transpose(2, 0, 1))
    (tmp_path / "grey").mkdir()
    images, *_ = fetched(tmp_path / "grey", **folder(tmp_path / "grey", image), channels=1)
    assert np.abs(255 * images[0, 0] - COLOURS @ [0.299, 0.587, 0.114]).max() < 0.51


HALF = Image.fromarray(np.where(RAMP > 100, 255, 0).astype(np.uint8))
CLEAR = palette(RAMP)
CLEAR.info["transparency"] = 7


@pytest.mark.parametrize(
    ("image", "name", "reason"),
    [
        (Image.new("CMYK", (8, 8)), "x.tif", "x.tif has Pillow's mode CMYK; save it as grey or RGB"),
        (Image.new("I", (8, 8), 70000), "x.tif", "x.tif has Pillow's mode I;"),
        (Image.new("F", (8, 8)), "x.tif", "x.tif has Pillow's mode F;"),
        (Image.new("LAB", (8, 8)), "x.tif", "x.tif has Pillow's mode LAB;"),
        (Image.new("YCbCr", (8, 8)), "x.tif", "x.tif has Pillow's mode YCbCr;"),
        (Image.merge("LA", (Image.fromarray(RAMP), HALF)), "x.png", "x.png (mode LA) has transparent pixels"),
        (Image.new("RGBA", (8, 8)), "x.png", "x.png (mode RGBA) has transparent pixels"),
        (CLEAR, "x.png", "x.png (mode P) has transparent pixels"),
        (Image.fromarray(RAMP.astype(np.uint16)), "x.png", "x.png (mode I;16) has no pixel above 255 of 65535"),
        (Image.new("L", (8, 9)), "x.png", "x.png is 8x9, not 8x8 pixels"),
        (b"", "x.png", "x.png cannot be read: "),
        (b"class,file", "notes.csv", "notes.csv cannot be read: cannot identify image file"),
        (sixteen(RAMP, 0)[:-30], "x.png", "x.png cannot be read: "),
    ],
)
def test_an_image_that_is_not_certain_is_refused_by_name(image, name, reason, tmp_path):
    message = refused(tmp_path, **folder(tmp_path, image, name), channels=1)
    assert reason in message and str(tmp_path / "train" / "left" / name) in message


def test_frames_are_not_dropped(tmp_path):
    two = {"save_all": True, "append_images": [Image.fromarray(255 - RAMP)]}
    assert "x.gif has 2 frames" in refused(tmp_path, **folder(tmp_path, Image.fromarray(RAMP), "x.gif", **two))


def test_what_systems_leave_behind_is_skipped_and_counted(tmp_path):
    block = folder(tmp_path, Image.fromarray(RAMP))
    train = tmp_path / "train"
    for name in (".DS_Store", "left/.DS_Store", "left/Thumbs.db", "left/._x.png", ".git/config", "__MACOSX/left/x.png"):
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        (train / name).write_bytes(b"not an image")
    *_, labels, lines = fetched(tmp_path, **block)
    assert labels.tolist() == [0, 1]
    assert f"{train}: 6 hidden or system file(s) skipped, .DS_Store the first" in lines


@pytest.mark.parametrize("place", ["up", "left/deeper", "."])
def test_no_image_is_dropped_for_where_it_lies(place, tmp_path):
    block = folder(tmp_path, Image.fromarray(RAMP))
    (tmp_path / "train" / place).mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(RAMP).save(tmp_path / "train" / place / name)
    message = refused(tmp_path, **block)
    assert f"{tmp_path / 'train' / place} has 2 file(s), a.png the first, but is no folder of a class" in message
    assert "class_names: left, right" in message


def test_folders_of_classes_may_be_links_or_lie_deeper(tmp_path):
    block = folder(tmp_path, Image.fromarray(RAMP))
    (tmp_path / "train" / "right").rename(tmp_path / "elsewhere")
    (tmp_path / "train" / "deep").mkdir()
    (tmp_path / "train" / "deep" / "right").symlink_to(tmp_path / "elsewhere")
    assert fetched(tmp_path, **block, class_names=["left", "deep/right"])[1].tolist() == [0, 1]
    assert [file.name for file in own.listed(tmp_path / "train")[0]] == ["black.png", "x.png"]
