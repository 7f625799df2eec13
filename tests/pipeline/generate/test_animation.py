from __future__ import annotations

import base64
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.generate.animation import strip, write_animation
from tests.support.browser import browser_page, needs_browser

FRAMES = np.stack([np.full((64, 48, 3), (level, 30, 200), np.uint8) for level in (0, 60, 120, 240)])
THERE_AND_BACK = (0, 60, 120, 240, 120, 60)


def test_a_strip_is_side_by_side() -> None:
    side_by_side = strip(FRAMES)
    assert side_by_side.shape == (64, 4 * 48, 3)
    np.testing.assert_array_equal(side_by_side[:, 48:96], FRAMES[1])


def test_a_gif_goes_there_and_back_for_ever(tmp_path: Path) -> None:
    write_animation(FRAMES, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (48, 64)
        assert gif.info["loop"] == 0
        reds = []
        for number in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(number)
            reds.append(np.asarray(gif.convert("RGB"))[0, 0, 0])
    np.testing.assert_allclose(reds, THERE_AND_BACK, atol=3)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.gif"]


def test_an_mp4_goes_there_and_back_in_h264(tmp_path: Path) -> None:
    write_animation(FRAMES, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as video:
        stream = video.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.pix_fmt, stream.width, stream.height) == ("yuv420p", 48, 64)
        colors = [frame.to_ndarray(format="rgb24")[32, 24] for frame in video.decode(stream)]
    np.testing.assert_allclose(colors, [(red, 30, 200) for red in THERE_AND_BACK], atol=3)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "it plays only when all of it is there"


# Plays a video from its first to its last frame and says how long it is and which colour its middle
# has in the beginning and halfway.
_PLAY = """async (source) => {
  const video = Object.assign(document.createElement("video"), {src: source, muted: true});
  const canvas = Object.assign(document.createElement("canvas"), {width: 48, height: 64});
  const pen = canvas.getContext("2d");
  const until = (event) => new Promise((done, fail) => {
    video.addEventListener(event, done, {once: true});
    video.addEventListener("error", () => fail(new Error(video.error.message)), {once: true});
  });
  const colorAt = async (seconds) => {
    video.currentTime = seconds;
    await until("seeked");
    for (;;) {  // on a busy machine the first frame comes later than the event
      pen.drawImage(video, 0, 0);
      const [red, green, blue, alpha] = pen.getImageData(24, 32, 1, 1).data;
      if (alpha) return [red, green, blue];
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  };
  await until("loadeddata");
  const colors = [await colorAt(0.04), await colorAt(3.5 / 12)];
  video.currentTime = 0;
  const end = until("ended");
  await video.play();
  await end;
  return {seconds: video.duration, colors};
}"""


@needs_browser
def test_a_browser_plays_an_mp4(tmp_path: Path) -> None:
    write_animation(FRAMES, tmp_path / "a.mp4")
    content = base64.b64encode((tmp_path / "a.mp4").read_bytes()).decode()
    with browser_page(200, 200) as (page, wrong):
        played = page.evaluate(_PLAY, f"data:video/mp4;base64,{content}")
    assert played["seconds"] == pytest.approx(len(THERE_AND_BACK) / 12, abs=0.01)
    np.testing.assert_allclose(played["colors"], [(0, 30, 200), (240, 30, 200)], atol=6)
    assert not wrong


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    for name in ("a.gif", "a.mp4"):
        with pytest.raises(OSError, match=name):
            write_animation(FRAMES, tmp_path / "gone" / name)
    assert not list(tmp_path.iterdir())
