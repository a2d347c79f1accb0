import math

from optuna_discipline.visualization import style


def test_long_series_are_thinned_and_keep_both_ends() -> None:
    kept = style.thinned(range(10_000))
    assert len(kept) <= style.MAX_POINTS
    assert (kept[0], kept[-1]) == (0, 9999)
    assert style.thinned([1, 2, 3]) == [0, 1, 2]


def test_what_a_figure_cannot_show_is_left_out() -> None:
    assert [style.finite(x) for x in (math.nan, math.inf, None, 1.23456789)] == [None, None, None, 1.23457]


def test_figures_are_transparent_small_and_have_titled_axes() -> None:
    made = style.figure("title", x="step", y="loss", log_x=True)
    assert made.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert (made.layout.xaxis.title.text, made.layout.xaxis.type) == ("step", "log")
    assert len(style.note(made, "nothing").to_json()) < 2_000


def test_stages_differ_in_color() -> None:
    assert len(set(style.STAGE_COLORS.values())) == len(style.STAGE_COLORS)


def test_remarks_are_broken_into_lines_that_a_narrow_page_shows() -> None:
    made = style.titled(style.figure("title", x="x", y="y"), "title", "word " * 40)
    lines = made.layout.title.text.split("<br>")
    assert lines[0] == "title"
    assert all(len(line.partition(">")[2].removesuffix("</span>")) <= style.LINE_LENGTH for line in lines[1:])


def test_an_axis_of_few_epochs_has_no_labels_between_them() -> None:
    assert style.counting_axis([0, 1, 2]) == {"dtick": 1}
    assert style.counting_axis([]) == style.counting_axis(range(100)) == {}


def test_a_page_may_write_title_and_remarks_itself() -> None:
    made = style.titled(style.figure("title", x="x", y="y"), "title", "remarks, with <tags>")
    assert "&lt;tags>" in made.layout.title.text
    assert style.caption(made) == "Title. Remarks, with <tags>."
    assert made.layout.title.text is None


def test_short_axes_have_labels_between_the_powers() -> None:
    assert style.log_axis(False) == {}
    assert [style.log_axis(True, ends=(1.0, 10.0**n))["dtick"] for n in (2, 3, 8, 9, 300)] == [1, 1, 1, 2, 38]
    for low, high, named in (
        (0.15, 2.3, ["0.2", "0.5", "1", "2"]),
        (2e-11, 3e-10, ["2e-11", "5e-11", "1e-10", "2e-10"]),
        (15_000.0, 250_000.0, ["2e+4", "5e+4", "1e+5", "2e+5"]),
        (15_000.0, 90_000.0, ["20000", "50000"]),
        (4e-5, 3e-4, ["5e-5", "1e-4", "2e-4"]),
    ):
        axis = style.log_axis(True, ends=(low, high))
        ticks = zip(axis["tickvals"], axis["ticktext"], strict=True)
        assert [text for tick, text in ticks if low <= tick <= high] == named


def test_no_axis_shortens_numbers_by_letters_or_parts_thousands() -> None:
    made = style.figure("title", x="step", y="loss", log_x=True)
    assert made.layout.separators == "."
    assert (made.layout.yaxis.exponentformat, made.layout.xaxis.exponentformat) == ("e", "power")


def test_text_and_lines_are_seen_on_the_dashboards_white_and_dark_paper() -> None:
    def light(color: str) -> float:
        parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05

    def contrast(color: str) -> float:
        return min(light("#FFFFFF") / light(color), light(color) / light("#1E1E1E"))

    assert contrast(style.INK) > 4
    assert contrast(style.INK) == max(contrast(f"#{grey:02X}{grey:02X}{grey:02X}") for grey in range(60, 200))
    assert min(map(contrast, (style.TRAIN_COLOR, style.VAL_COLOR))) > 3
