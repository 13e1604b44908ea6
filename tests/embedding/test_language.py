"""Languages of texts as chats have them, and texts that no language is told of."""

from __future__ import annotations

import random
import socket

import pytest

from embedding.text import language
from embedding.text.language import LEAST_BYTES, language_code, languages_of
from tests.support.languages import _WORDS

NO_LANGUAGE = {"code", "numbers", "signs"}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "can somebody have a look at the failed deploy?"),
        ("de", "Kannst du das bitte bis morgen prüfen?"),
        ("fr", "la réunion est déplacée à jeudi, merci de prévenir tout le monde"),
        ("es", "¿quién tiene la llave del almacén? la necesito hoy"),
        ("pt", "alguém sabe por que a reunião começou mais cedo?"),
        ("ru", "можешь посмотреть, почему упал деплой?"),
        ("ja", "はじめまして、よろしくお願いします"),
        ("zh", "请在部署之前先运行所有测试"),
        ("ko", "배포가 끝나면 알려 주세요"),
        ("de", "@ada.l :tada: Der Bericht ist fertig, siehe https://example.com/the/report/of/this/week #general"),
    ],
)
def test_a_sentence_says_its_language(code: str, text: str) -> None:
    assert languages_of([text]) == [code]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "thanks, lgtm",
        "ok ok ok ok ok ok ok ok ok ok ok",
        "https://example.com/where/the/report/of/this/week/is",
        "ada@example.com grace@example.com alan@example.com",
        ":tada: :rocket: :white_check_mark: :thinking_face: :eyes:",
        "🎉 🚀 👍🏽 ✅ → … 🎉 🚀 👍🏽 ✅ → …",
        "1,204.50 17% 2025-03-03T09:14:07Z 192.0.2.17 #4821 v1.2.3-rc.4",
        "SELECT t.id FROM t WHERE id=? && key[1:] + key[:1] == 0x1f",
    ],
    ids=["nothing", "a few words", "a word again", "address", "mails", "names of emoji", "emoji", "numbers", "code"],
)
def test_no_language_is_told_of_what_is_short_or_no_sentence(text: str) -> None:
    assert languages_of([text]) == [""]


def test_each_text_gets_its_own_language_in_order() -> None:
    texts = ["Kannst du das bitte prüfen?", "ok", "could you please have a look at it?", "Kannst du das bitte prüfen?"]
    assert languages_of(texts) == ["de", "", "en", "de"] and languages_of([]) == []


def test_words_drawn_in_24_languages_are_told_right_or_not_at_all() -> None:
    """Measured: of those long enough 97.8 % are told, 99.6 % of these right."""
    draw = random.Random(7)
    drawn = [
        (code, " ".join(draw.choices(words.split(), k=count)))
        for code, words in _WORDS.items()
        if code not in NO_LANGUAGE
        for count in (2, 3, 5, 8, 13)
        for _ in range(20)
    ]
    long = [(code, text) for code, text in drawn if len(text.replace(" ", "").encode()) >= LEAST_BYTES]
    told = [
        (code, found) for (code, _), found in zip(long, languages_of([text for _, text in long]), strict=True) if found
    ]
    assert len(told) >= 0.96 * len(long) and len(long) > 1_500
    assert sum(code == found for code, found in told) >= 0.99 * len(told)


def test_the_model_is_read_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was opened"))
    language._model.cache_clear()
    assert languages_of(["a sentence that is long enough"]) == ["en"]


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("de", "de"),
        (" pt-BR ", "pt"),
        ("ZH_Hant_TW", "zh"),
        ("german", ""),
        ("deu", ""),
        ("", ""),
        ("-", ""),
        ("7", ""),
    ],
)
def test_a_tag_s_language_is_its_first_two_letters(tag: str, code: str) -> None:
    assert language_code(tag) == code


def test_many_texts_at_once_are_told_what_the_library_says_of_each() -> None:
    draw = random.Random(7)
    texts = ["", "\0", "A WORD IN CAPITALS ALONE", "e\u0301", "\U0001f389 \U0001f680"]
    texts += [" ".join(draw.choices(_WORDS[draw.choice(list(_WORDS))], k=draw.randint(1, 40))) for _ in range(400)]
    model = language._model()
    for (label, probability), text in zip(model.classify(texts), texts, strict=True):
        wanted, sure = model._identifier.classify(text)
        assert label == wanted and probability == pytest.approx(sure, abs=1e-4), text


def test_what_is_said_of_a_text_does_not_depend_on_those_beside_it() -> None:
    draw = random.Random(8)
    texts = [" ".join(draw.choices(_WORDS[draw.choice(list(_WORDS))], k=draw.randint(1, 40))) for _ in range(50)]
    model = language._model()
    assert [model.classify([text])[0] for text in texts] == model.classify(texts)
