import numpy as np
import pytest

from poyo_ssl.report.formatting import (
    format_count,
    format_duration,
    format_interval,
    format_number,
    format_p_value,
    format_score,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_score(0.89812, "accuracy"), "0.898"),
        (format_score(17.8261, "psnr"), "17.83"),
        (format_score(-0.0333, "ssim", signed=True), "−0.033"),
        (format_score(float("nan"), "ssim"), "–"),
        (format_score(None, "ssim"), "–"),
        (format_interval(-0.047, 0.02, "ssim", signed=True), "[−0.047, +0.020]"),
        (format_interval(0.1, float("nan"), "ssim"), "–"),
        (format_p_value(0.00002), "< 0.001"),
        (format_p_value(0.0042), "0.004"),
        (format_p_value(0.71), "0.71"),
        (format_p_value(float("nan")), "–"),
        (format_count(np.int64(43181)), "43,181"),
        (format_number(np.float32(2.5), 2), "2.50"),
        (format_duration(12.34), "12.3 s"),
        (format_duration(1439.2), "23 min 59 s"),
        (format_duration(4271.3), "1 h 11 min"),
        (format_duration(None), "–"),
    ],
)
def test_numbers_read_as_a_paper_prints_them(text, expected):
    assert text == expected
