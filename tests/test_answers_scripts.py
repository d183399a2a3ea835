"""Reading orders with the punctuation of Chinese and Japanese."""

from __future__ import annotations

import json

import pytest

from answer_cases import FORMS, LABELS, order
from uprank.scorers.llm.answers import ParsedRanking, parse_ranking
from uprank.scorers.llm.grades import parse_grades, parse_yes_no

# Of all ASCII punctuation that is not part of JSON, TeX, HTML or tags, what Chinese and Japanese texts write for it.
OTHER_SIGNS = str.maketrans({",": "，", ":": "：", "[": "【", "]": "】", "(": "（", ")": "）", "'": "’", "-": "－"})
STARTS_OF_OTHERS = ("JSON", "announced JSON", "chain in HTML", "chain in TeX", "table", "in a channel")


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith(STARTS_OF_OTHERS)])
@pytest.mark.parametrize("labels", [None, LABELS], ids=["numbers", "labels"])
def test_every_form_may_have_other_punctuation(form: str, labels: tuple[str, ...] | None):
    expected = (3, 0, 4, 1, 2)
    text = FORMS[form]([labels[one] if labels else str(one + 1) for one in expected]).translate(OTHER_SIGNS)
    assert parse_ranking(text, 5, labels) == ParsedRanking(expected, (), ()), text


@pytest.mark.parametrize(
    "text",
    [
        "排序：Q2M, K7F, X9D",
        "最终排序结果：Q2M，K7F，X9D。",
        "答案：Q2M、K7F、X9D",
        "ランキング：Q2M、K7F、X9D。",
        "順位： Q2M＞K7F＞X9D。",
        "Q2M，K7F，X9D。",
        "Q2M，K7F，X9D｡",
        "Q2M､K7F､X9D",
        "「Q2M」＞「K7F」＞「X9D」",
        "【Q2M】【K7F】【X9D】",
        "1、[Q2M]：写了年份\n2、[K7F]：写了城市\n3、[X9D]：无关",
        "1、Q2M：写了年份\n2、K7F：写了城市\n3、X9D：无关",
        "１、【Q2M】\n２、【K7F】\n３、【X9D】",
        "**1、**[Q2M]\n**2、**[K7F]\n**3、**[X9D]",
        "第1名：[Q2M]\n第2名：[K7F]\n第3名：[X9D]",
        "第一名：【Q2M】\n第二名：【K7F】\n第三名：【X9D】",
        "- 第 1 名：Q2M\n- 第 2 名：K7F\n- 第 3 名：X9D",
        "1位：[Q2M]\n2位：[K7F]\n3位：[X9D]",
        "第1位【Q2M】\n第2位【K7F】\n第3位【X9D】",
        '{"ranking": ["Q2M"，"K7F"、"X9D"]}',
        "{“ranking”：[“Q2M”, “K7F”, “X9D”]}",
        '{"why": "“第一”最相关", "ranking": ["Q2M", "K7F", "X9D"]}',
        "{'why': 'it’s the year', 'ranking': ['Q2M', 'K7F', 'X9D']}",
    ],
)
def test_punctuation_of_chinese_and_japanese(text: str):
    assert parse_ranking(text, 3, LABELS[:3]) == ParsedRanking((1, 0, 2), ())


@pytest.mark.parametrize(
    "text", ["排序：2，1，3。", "2、1、3", "2、1、3。", "第1名：[2]\n第2名：[1]\n第3名：[3]", "1、[2]\n2、[1]\n3、[3]"]
)
def test_numbers_with_punctuation_of_chinese_and_japanese(text: str):
    assert parse_ranking(text, 3) == ParsedRanking((1, 0, 2), ())


def test_chinese_numerals_count_on_past_ten():
    ones = "一二三四五六七八九"
    numerals = [*ones, *(ten + one for ten in ("十", "二十") for one in ("", *ones))][:21]
    ids = list(range(21, 0, -1))
    text = "\n".join(f"第{numeral}名：[{one}]" for numeral, one in zip(numerals, ids, strict=True))
    assert parse_ranking(text, 21) == ParsedRanking(tuple(one - 1 for one in ids), ())


@pytest.mark.parametrize(
    "text",
    [
        "共3段，第2段最相关，第1段次之。",
        "第2段最相关。\n第1段次之。\n第3段无关。",
        "这3个段落中，2个相关，1个不相关。",
        "2024年3月1日",
        "2、1、3 都不相关。",
        "3名学生、2位老师、1个孩子",
        "2名学生：3\n3名学生：1",
        "得分：2。1、3。5",
        "1、关于第2段。\n2、关于第1段。\n3、关于第3段。",
    ],
)
def test_no_number_of_a_chinese_sentence_is_an_id(text: str):
    assert order(text, 3) == []


def test_curly_quotes_inside_a_json_string_are_part_of_it():
    text = json.dumps({"why": "the “best” of ‘all’", "ranking": ["Q2M", "K7F"]}, ensure_ascii=False)
    assert parse_ranking(text, 2, LABELS[:2]) == ParsedRanking((1, 0), ())


def test_other_answers_with_punctuation_of_chinese_and_japanese():
    assert parse_grades("K7F：2。\nQ2M：3。", LABELS[:2], 3) == (2 / 3, 1.0)
    assert parse_yes_no("Yes。") is True
