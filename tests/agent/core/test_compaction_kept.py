"""What stays of a history that is summed up."""

import pytest

from agent.core.compaction import KEPT_TOKENS, Compaction, NotOneSummary, kept
from agent.core.thread import message
from tests.agent.core.test_compaction import CALL, CONTEXT, KEPT_SUMMARY, SUMMARY, said


def test_the_words_of_the_developer_and_the_user_stay_and_the_rest_goes():
    developer, user, more = message("developer", "be brief"), message("user", "hello"), message("user", "more")
    output = {"type": "function_call_output", "call_id": "call-1", "output": "x"}
    history = [developer, CONTEXT, user, said("hi"), CALL, output, KEPT_SUMMARY, more]

    assert kept(history) == [developer, CONTEXT, user, more]


def test_of_too_many_words_the_newest_stay_and_where_the_work_is():
    long = [message("user", f"{number}" * (KEPT_TOKENS * 2)) for number in range(5)]

    assert kept([CONTEXT, *long]) == [CONTEXT, *long[3:]]


def test_of_a_word_that_is_too_long_the_beginning_and_the_end_stay():
    """It was left out as a whole once: a model that was given a long task lost it. As codex-cli 0.169.0 cuts it."""
    half = KEPT_TOKENS * 4 // 2
    (cut, after) = kept([message("user", "a" * half * 2 + "b" * half * 2), message("user", "next")])

    (part,) = cut["content"]
    assert part["text"] == "a" * (half - 2) + f"…{KEPT_TOKENS + 1} tokens truncated…" + "b" * (half - 2)
    assert after == message("user", "next")


def test_a_letter_of_several_bytes_is_not_cut_in_two():
    (cut,) = kept([message("user", "ä" * 50)], 10)

    assert cut == message("user", "ä" * 10 + "…15 tokens truncated…" + "ä" * 10)


def test_of_a_word_with_images_that_do_not_fit_the_text_stays():
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    word = {**message("user", "look"), "content": [*message("user", "look")["content"], image]}

    assert kept([word]) == [word] and kept([word], 1000) == [message("user", "look")]


def test_an_older_word_does_not_slip_past_one_that_was_cut():
    assert len(kept([message("user", "old"), message("user", "x" * (KEPT_TOKENS * 5))])) == 1


def test_the_summary_comes_last_without_its_id():
    compaction = Compaction("item-1", 0, [], outputs=[SUMMARY])

    assert compaction.result([CONTEXT, said("hi")]) == [CONTEXT, KEPT_SUMMARY]


@pytest.mark.parametrize(
    ("outputs", "found"),
    [([], "0 from 0"), ([said("no")], "0 from 1"), ([SUMMARY, SUMMARY], "2 from 2")],
)
def test_anything_but_one_summary_is_refused(outputs, found):
    with pytest.raises(NotOneSummary, match=f"got {found} output items"):
        Compaction("item-1", 0, [], outputs=outputs).result([])
