import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from course import film


def moving(count=6, side=48):
    """A red square that walks over grey."""
    frames = np.full((count, side, side + 1, 3), 128, np.uint8)  # an odd width
    for k in range(count):
        frames[k, 10:20, 4 * k : 4 * k + 12] = (220, 30, 30)
    return frames


def square(frame):
    """Where the red square is, or None."""
    red = frame[..., 0].astype(int) - frame[..., 1] > 80
    return np.flatnonzero(red.any(0)).mean() if red.any() else None


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".webm"])
def test_a_film_comes_back(suffix, tmp_path, capfd):
    path, frames = tmp_path / f"film{suffix}", moving()
    try:
        film.save(path, frames, fps=10)
    except ValueError as error:
        assert suffix != ".gif"
        pytest.skip(str(error))
    back, fps = film.read(path)
    assert len(back) == len(frames)
    assert fps == pytest.approx(10, rel=0.01)
    for (_, now), then in zip(back, frames, strict=True):
        assert abs(square(now) - square(then)) < 1.5
    assert len(film.read(path, every=2)[0]) == 3
    assert capfd.readouterr().err == ""  # codecs that are missing are not the user's business
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_stands_still_does_not_flicker(tmp_path):
    rng = np.random.default_rng(0)
    photograph = np.asarray(Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8)).resize(
        (60, 60), Image.Resampling.BICUBIC))  # fmt: skip
    frames = np.repeat(photograph[None], 5, 0).copy()
    frames[:, :, 40:] = np.linspace(0, 250, 5).astype(np.uint8)[:, None, None, None]
    film.save(tmp_path / "film.gif", frames)
    back = iio.imread(tmp_path / "film.gif")
    assert (back[:, :, :38] == back[:1, :, :38]).all()
    assert np.abs(back[0, :, :38].astype(int) - photograph[:, :38]).mean() < 12


def test_all_kinds_beside_each_other(tmp_path):
    written = film.save_all(tmp_path / "a.gif", moving())
    assert tmp_path / "a.gif" in written
    assert sorted(written) == sorted(tmp_path.iterdir())


def test_a_folder_of_frames_in_counting_order(tmp_path):
    for k, number in enumerate((10, 2, 1)):
        iio.imwrite(tmp_path / f"frame_{number}.png", np.full((40, 40, 3), 50 * k, np.uint8))
    frames, fps = film.read(tmp_path)
    assert [name for name, _ in frames] == ["frame_1", "frame_2", "frame_10"]
    assert [int(picture.mean()) for _, picture in frames] == [100, 50, 0]
    assert fps == film.FPS


def test_what_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="neither a folder of frames nor a video"):
        film.read(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="no frame that can be read"):
        film.read(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match="no frame that can be read"):
        film.read(tmp_path / "broken.mp4")
    (tmp_path / "broken.gif").write_bytes(b"no film")
    with pytest.raises(ValueError, match="not a film that can be read"):
        film.read(tmp_path / "broken.gif")
    film.save(tmp_path / "a.gif", moving())
    monkeypatch.setattr(film, "MAX_FRAMES", 4)
    with pytest.raises(ValueError, match="--every 2"):
        film.read(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="every second"):
        film.read(tmp_path / "a.gif", every=0)
    with pytest.raises(ValueError, match="no kind of film"):
        film.save(tmp_path / "a.xyz", moving())
    with pytest.raises(ValueError, match="no frame to write"):
        film.save(tmp_path / "b.gif", [])
    monkeypatch.setattr(film, "CODECS", {".mp4": (), ".webm": ()})
    monkeypatch.setattr(film, "_save_by_ffmpeg", lambda *_: False)
    with pytest.raises(ValueError, match=r"No encoder here can write \.mp4"):
        film.save(tmp_path / "b.mp4", moving())
    assert film.save_all(tmp_path / "b.gif", moving()) == [tmp_path / "b.gif"]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("fps", [1e-9, 60.0, 1e9])
def test_a_gif_has_a_pause_that_players_keep(fps, tmp_path):
    film.save(tmp_path / "a.gif", moving(), fps)
    with Image.open(tmp_path / "a.gif") as picture:
        assert 20 <= picture.info["duration"] <= 655_350


def test_a_gif_is_seen_for_as_long_as_it_says(tmp_path):
    """Pillow writes frames that are alike as one, with a longer pause."""
    walk = moving()
    film.save(tmp_path / "a.GIF", [walk[0]] * 5 + list(walk[1:]), 20)
    frames, fps = film.read(tmp_path / "a.GIF")
    assert (len(frames), fps) == (10, 20)
    where = [square(picture) for _, picture in frames]
    assert where[:5] == [where[0]] * 5
    assert where[4:] == sorted(set(where[4:]))
    assert [name for name, _ in film.read(tmp_path / "a.GIF", 4)[0]] == ["0000", "0004", "0008"]


def test_a_gif_with_a_pause_too_short_to_be_kept(tmp_path):
    first, *rest = (Image.fromarray(frame) for frame in moving())
    pauses = [10] + [100] * len(rest)
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=pauses)
    frames, _ = film.read(tmp_path / "a.gif")
    assert len(frames) <= 2 * len(pauses)


def test_what_is_no_gif_is_not_opened(tmp_path):
    (tmp_path / "e.gif").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n")
    with pytest.raises(ValueError, match="not a film that can be read"):
        film.read(tmp_path / "e.gif")


def test_names_as_people_write_them(tmp_path):
    film.save(tmp_path / "A.MP4", moving())
    (tmp_path / "frames").mkdir()
    for k, name in enumerate(("frame²1", "frame²2")):
        iio.imwrite(tmp_path / "frames" / f"{name}.png", moving()[k])
    assert [name for name, _ in film.read(tmp_path / "frames")[0]] == ["frame²1", "frame²2"]


def test_gifs_are_as_fast_as_asked(tmp_path):
    for fps, kept in ((24.0, 1), (36.0, 1), (40.0, 1), (45.0, 1), (48.0, 1), (60.0, 2)):
        film.save(tmp_path / "a.gif", moving(), fps)
        frames, found = film.read(tmp_path / "a.gif")
        assert len(frames) == 6 / kept
        assert found == pytest.approx(fps / kept, rel=0.06)  # hundredths of a second


def test_frames_of_two_sizes(tmp_path):
    with pytest.raises(ValueError, match="not all of one size"):
        film.save(tmp_path / "a.mp4", [*moving(2), *moving(2, 24)])
    assert not list(tmp_path.iterdir())
