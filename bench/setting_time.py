"""What a setting of `maskring export` costs: the median processor time of a step for each value, by turns.

python bench/setting_time.py --frames DAVIS/JPEGImages/480p/dog-agility guided_filter_radius 0 2
python bench/setting_time.py --frames DAVIS/JPEGImages/480p/dog-agility confidence_exponent 0 4
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from localisation import step_times

from maskring.export.onnx_export import export_onnx
from maskring.models import model_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("setting", help="as in export_onnx")
    parser.add_argument("values", type=int, nargs="+")
    parser.add_argument("--frames", type=Path, required=True, help="folder of at least ten .jpg files")
    parser.add_argument("--model", type=Path, default=Path("pico"), help="checkpoint")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {value: Path(folder) / f"{value}.onnx" for value in options.values}
        for value, model in models.items():
            setting: dict[str, Any] = {options.setting: value}
            export_onnx(model_file(options.model), model, **setting)
        times = step_times(models, sorted(options.frames.glob("*.jpg")), threads=1)
    for value, spent in times.items():
        print(f"{options.setting} {value}: {spent:.1f} ms of processor time per frame")


if __name__ == "__main__":
    main()
