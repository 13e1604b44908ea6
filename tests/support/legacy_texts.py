"""Made-up notes in many languages, each with the legacy encodings that people wrote it in."""

from __future__ import annotations

# language: (encodings, short texts as a note or a mail has them). The encodings are the usual ones of that language.
LEGACY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fr": (
        ("cp1252",),
        (
            "Le procès est terminé.",
            "Café fermé",
            "Voilà où la réunion commence, à côté du garage.",
            "Prévenez Hélène : le contrat a été signé hier, l'œuvre n'est pas prête.",
        ),
    ),
    "de": (
        ("cp1252",),
        (
            "Grüße aus Köln",
            "Der Schlüssel für das Büro liegt übermorgen im Schließfach.",
            "Straße gesperrt",
            "Bitte die Maße prüfen, die Tür schließt nicht.",
        ),
    ),
    "es": (
        ("cp1252",),
        (
            "Mañana no hay reunión.",
            "¿Dónde está el señor Núñez?",
            "El año próximo pagaré la factura del camión.",
            "Avería en el baño",
        ),
    ),
    "pt": (
        ("cp1252",),
        (
            "A máquina está avariada.",
            "Não há água na estação.",
            "A reunião começa às nove, não esqueça a documentação.",
            "João pediu três pães.",
        ),
    ),
    "it": (
        ("cp1252",),
        (
            "La città è più bella di così.",
            "Perché non c'è più caffè?",
            "Martedì la riunione sarà in università.",
            "Il tè è già pronto.",
        ),
    ),
    "nl": (("cp1252",), ("De coördinatie is geregeld in België.", "Één idee: reünie in café.", "Financiële crisis")),
    "sv": (
        ("cp1252",),
        ("Nyckeln är på kontoret.", "Räksmörgås på fredag", "Mötet börjar klockan nio, kom inte för sent från Malmö."),
    ),
    "da": (
        ("cp1252",),
        ("Nøglen ligger på bordet.", "Mødet er aflyst på grund af sne i Ålborg.", "Tag også kagen, Søren."),
    ),
    "no": (("cp1252",), ("Møtet er flyttet til tirsdag på grunn av snøen.", "Kjære Bjørn, bøkene er på vei.")),
    "fi": (
        ("cp1252",),
        ("Kokous siirrettiin perjantaihin.", "Älä unohda hyväksyä laskuja.", "Työntekijät ovat lomalla tänään."),
    ),
    "is": (("cp1252",), ("Fundurinn er á þriðjudaginn í Reykjavík.", "Lykillinn er á borðinu, góða ferð.")),
    "en": (
        ("cp1252",),
        (
            "It’s the client’s “final” offer.",
            "Price: £40 – £60",
            "The café’s menu costs 5 €.",
            "Don’t touch the valve…",
            "Résumé attached.",
        ),
    ),
    "pl": (
        ("cp1250", "iso8859_2"),
        (
            "Proszę sprawdzić zamówienie.",
            "Spotkanie przełożono na środę, ponieważ sala jest zajęta.",
            "Źródło błędu leży gdzie indziej.",
            "Dzień dobry, książka już została wysłana.",
        ),
    ),
    "cs": (
        ("cp1250", "iso8859_2"),
        (
            "Příští týden se stěhuje kancelář.",
            "Žluťoučký kůň pěl ďábelské ódy.",
            "Prosím zavřete okna, než odejdete.",
            "Schůzka je v úterý ve čtyři.",
        ),
    ),
    "sk": (("cp1250", "iso8859_2"), ("Stretnutie sa presúva na štvrtok.", "Prosím, pošlite mi účet ešte dnes večer.")),
    "hu": (
        ("cp1250", "iso8859_2"),
        ("Kérjük, frissítse a jelszavát a hétvége előtt.", "Az ülés időpontja megváltozott.", "Árvíztűrő tükörfúrógép"),
    ),
    "ro": (("cp1250", "iso8859_2"), ("Şedinţa a fost amânată pe joi.", "Vă rugăm să trimiteţi factura până mâine.")),
    "hr": (
        ("cp1250", "iso8859_2"),
        ("Sastanak je pomaknut na četvrtak.", "Molimo pošaljite račun, ključ je već kod nas."),
    ),
    "sl": (
        ("cp1250", "iso8859_2"),
        ("Sestanek je prestavljen na četrtek.", "Prosimo, pošljite račun še danes, ključ že čaka."),
    ),
    "ru": (
        ("cp1251", "koi8_r", "cp866"),
        (
            "Встреча переносится на завтра.",
            "Ключ лежит в столе, сообщите остальным.",
            "Привет",
            "Счёт оплачен, груз отправлен в понедельник.",
        ),
    ),
    "uk": (("cp1251", "koi8_u"), ("Будь ласка, перевірте звіт до обіду.", "Зустріч перенесено, її не буде.")),
    "bg": (("cp1251",), ("Срещата се отлага за утре.", "Моля, изпратете фактурата днес.")),
    "el": (
        ("cp1253", "iso8859_7"),
        (
            "Η συνάντηση αναβάλλεται για αύριο.",
            "Παρακαλώ στείλτε το τιμολόγιο σήμερα.",
            "Καλημέρα",
            "Ο σύνδεσμος δεν λειτουργεί από το πρωί.",
        ),
    ),
    "tr": (
        ("cp1254",),
        (
            "Toplantı yarın sabah saat dokuzda başlayacak.",
            "Lütfen raporu güncelleyin, müşteri bekliyor.",
            "Işık açık kalmış, şalteri kapatın.",
            "Türkiye'ye hoş geldiniz, çağrı merkezi açıldı.",
        ),
    ),
    "he": (("cp1255",), ("הפגישה נדחתה למחר בבוקר.", "נא לעדכן את כולם לפני הצהריים.", "שלום לכולם")),
    "ar": (("cp1256",), ("يرجى تحديث كلمة المرور قبل نهاية الأسبوع.", "تم تأجيل الاجتماع إلى الغد.", "صباح الخير")),
    "th": (("cp874",), ("การประชุมเลื่อนไปเป็นวันศุกร์", "กรุณาแจ้งทุกคนก่อนเที่ยง")),
    "vi": (("cp1258",), ()),
    "lt": (
        ("cp1257",),
        ("Susitikimas perkeltas į ketvirtadienį, prašome pranešti.", "Raktas jau yra kabinete, ačiū už pagalbą."),
    ),
    "lv": (("cp1257",), ("Sanāksme pārcelta uz piektdienu.", "Lūdzu, nosūtiet rēķinu šodien, atslēga ir pie mums.")),
    "et": (("cp1252", "cp1257"), ("Koosolek lükati edasi, palun öelge teistele.", "Võti on juba töölaual, aitäh.")),
    "ja": (
        ("cp932", "euc_jp", "iso2022_jp"),
        (
            "会議は明日の三時からです。",
            "資料を忘れないでください。サーバーは夜中に再起動します。",
            "お疲れ様です",
            "請求書を本日送付しました。ご確認をお願いします。",
        ),
    ),
    "zh-cn": (
        ("gb18030",),
        (
            "会议改到明天下午三点。",
            "请在部署之前先运行所有测试，谢谢大家。",
            "钥匙在抽屉里",
            "发票今天已经寄出，请查收。",
        ),
    ),
    "zh-tw": (
        ("big5",),
        ("會議改到明天下午三點。", "請在部署之前先執行所有測試，謝謝大家。", "發票今天已經寄出，請查收。"),
    ),
    "ko": (
        ("cp949",),
        (
            "회의는 내일 아침 아홉 시에 시작합니다.",
            "배포가 끝나면 알려 주세요.",
            "안녕하세요",
            "청구서는 오늘 보냈습니다.",
        ),
    ),
}
