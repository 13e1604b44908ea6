"""Texts in many languages and of many lengths, the same every time: what an encoder is compared on."""

from __future__ import annotations

import random

COUNT = 2_000

# A few everyday words of each language; texts are drawn from them, so every script and tokenizer path is met.
_WORDS = {
    "en": "the server restarts tonight please check your invoices before lunch and call me when the backup is done",
    "de": "der Schlüssel für den Serverraum liegt übermorgen wieder im Büro bitte nicht vergessen Größe Straße",
    "fr": "la réunion est déplacée à jeudi merci de prévenir les équipes où êtes vous allés après le déjeuner",
    "es": "la factura del año pasado todavía no está pagada mañana hablaré con el señor Núñez sobre el envío",
    "pt": "a reunião começa às nove não esqueça de trazer a documentação da máquina que está avariada",
    "pl": "proszę sprawdzić czy zamówienie zostało wysłane ponieważ klient dzwonił już trzy razy źdźbło",
    "cs": "příští týden budeme stěhovat kancelář žluťoučký kůň pěl ďábelské ódy prosím zavřete okna",
    "tr": "toplantı yarın sabah saat dokuzda başlayacak lütfen raporu güncelleyin İstanbul ışık çağrı",
    "fi": "kokous siirrettiin perjantaihin koska työntekijät ovat lomalla älä unohda hyväksyä laskuja",
    "hu": "kérjük frissítse a jelszavát a hétvége előtt mert különben nem tud bejelentkezni árvíztűrő",
    "vi": "cuộc họp được dời sang thứ sáu vui lòng thông báo cho mọi người trước giờ trưa nhé",
    "ru": "встреча переносится на завтра потому что переговорная занята пожалуйста сообщите остальным",
    "uk": "будь ласка перевірте звіт до обіду бо замовник чекає на відповідь їжак ґанок",
    "el": "ο σύνδεσμος δεν λειτουργεί από το πρωί παρακαλώ ενημερώστε τους υπόλοιπους",
    "he": "הפגישה נדחתה למחר בגלל שהחדר תפוס נא לעדכן את כולם לפני הצהריים",
    "ar": "يرجى تحديث كلمة المرور قبل نهاية الأسبوع وإبلاغ الفريق بالموعد الجديد",
    "fa": "لطفا گزارش را تا فردا صبح بفرستید چون مشتری منتظر است",
    "hi": "कल सुबह नौ बजे सर्वर बंद रहेगा कृपया अपना काम पहले सहेज लें",
    "bn": "আগামীকাল সকালে সভা শুরু হবে দয়া করে সময়মতো আসুন",
    "ta": "நாளை காலை ஒன்பது மணிக்கு கூட்டம் தொடங்கும் தயவுசெய்து வாருங்கள்",
    "th": "การประชุมเลื่อนไปเป็นวันศุกร์ กรุณาแจ้งทุกคน ก่อนเที่ยง",
    "ja": "今日の 会議は 三時から です 資料を 忘れないで ください サーバーは 夜中に 再起動 します",
    "zh": "请在 部署 之前 先 运行 所有 测试 服务器 今晚 重启 谢谢 大家 的 配合",
    "ko": "배포가 끝나면 알려 주세요 회의는 내일 아침 아홉 시에 시작합니다",
    "code": "def rotate(key: bytes) -> bytes: return key[1:] + key[:1] SELECT * FROM t WHERE id=? && || {} 0x1f",
    "numbers": "1,204.50 EUR 17% 3:2 -40°C 6.022e23 2025-03-03T09:14:07Z 192.0.2.17 #4821 v1.2.3-rc.4",
    "signs": "🎉 🚀 👍🏽 ✅ → … “quoted” ‘so’ — – ½ ™ © Ω ≠ ∑ \u200b\u200d é",
}
_LENGTHS = (1, 2, 3, 5, 8, 13, 21, 40, 80, 160, 400)  # words; the last are past the model's limit in most languages
EACH = len(_WORDS) * len(_LENGTHS)  # the first so many are each language in each length once: the two have no divisor


def many_texts() -> list[str]:
    """``COUNT`` texts: each language in each length, some of them mixed with another language."""
    draw = random.Random(20_250_303)
    words = {name: text.split() for name, text in _WORDS.items()}
    texts: list[str] = []
    while len(texts) < COUNT:
        for own in words.values():
            length = _LENGTHS[len(texts) % len(_LENGTHS)]
            pool = own if draw.random() < 0.8 else own + draw.choice(list(words.values()))
            texts.append(" ".join(draw.choices(pool, k=length)))
    return texts[:COUNT]
