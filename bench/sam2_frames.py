"""SAM 2.1 tiny with random weights, a frame per line of its input: ``end_to_end.py`` runs it beside maskring.

In an environment of its own, without maskring. Weights do not change the time of a frame; none are loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", help="folder of JPEG files, named by number")
    parser.add_argument("mask", help="PNG of the first frame's objects")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--bfloat16", action="store_true", help="under autocast, as its authors run it on GPUs"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    predictor = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml", ckpt_path=None, device=options.device
    )
    half = torch.autocast(options.device, torch.bfloat16) if options.bfloat16 else contextlib.nullcontext()
    with torch.inference_mode(), half:
        state = predictor.init_state(options.frames)
        mask = np.array(Image.open(options.mask))
        for number in np.unique(mask[mask > 0]):
            predictor.add_new_mask(state, 0, int(number), mask == number)
        stream = predictor.propagate_in_video(state)
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            next(stream)
            if options.device != "cpu":
                torch.cuda.synchronize()
            spent = [time.perf_counter() - wall, time.process_time() - cpu]
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            peak = int(status["VmHWM"].split()[0]) / 1e3  # rusage would count the process it came from
            print(json.dumps([*spent, peak]), flush=True)


if __name__ == "__main__":
    main()
