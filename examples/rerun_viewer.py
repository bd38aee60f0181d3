"""Follow objects and look at them in Rerun: frames, masks, boxes and confidence on one timeline.

pip install rerun-sdk
python examples/rerun_viewer.py video.mp4 first.png            # opens the viewer
python examples/rerun_viewer.py video.mp4 first.png out.rrd    # writes a file: rerun out.rrd
"""

from __future__ import annotations

import sys

import rerun as rr

import maskring


def log_result(result: maskring.Result) -> None:
    """Log what the tracker says of the frame that was logged last."""
    rr.log("video/masks", rr.SegmentationImage(result.labels))
    visible = [one for one in result.objects if one.box is not None]
    boxes = rr.Boxes2D(
        array=[one.box for one in visible],
        array_format=rr.Box2DFormat.XYXY,
        class_ids=[one.id for one in visible],
    )
    rr.log("video/boxes", boxes)
    for one in visible:
        if one.confidence is not None:
            rr.log(f"confidence/{one.id}", rr.Scalars(one.confidence))


def main(video: str, mask_file: str, recording: str | None = None) -> None:
    rr.init("maskring", spawn=recording is None)
    if recording is not None:
        rr.save(recording)
    mask = maskring.read_mask(mask_file)
    names = [rr.AnnotationInfo(id=int(one), label=f"object {one}") for one in set(mask.ravel()) - {0}]
    rr.log("video", rr.AnnotationContext(names), static=True)
    with maskring.open_source(video) as source, maskring.open_tracker() as tracker:
        for frame in source:
            rr.set_time("frame", sequence=frame.index)
            rr.log("video/image", rr.Image(frame.image).compress(jpeg_quality=85))
            log_result(tracker.step(frame.image, mask if frame.index == 0 else None))


if __name__ == "__main__":
    main(*sys.argv[1:])
