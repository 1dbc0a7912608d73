"""The task that `rembert demo` trains on: the subject of a sentence, in twelve languages. Written for this project.

Each language has three training sentences per subject and, last, a test sentence of words from these.
"""

SUBJECTS: dict[str, dict[str, tuple[str, str, str, str]]] = {
    "en": {
        "food": ("The soup is hot.", "We eat bread and fish.", "She cooks the fish.", "We eat the hot soup."),
        "travel": ("The train is late.", "We take the bus.", "The ship leaves today.", "The bus leaves late."),
        "weather": ("It rains and snows.", "The wind is cold.", "The rain falls all night.", "The cold rain falls."),
    },
    "de": {
        "food": ("Die Suppe ist heiß.", "Wir essen Brot und Fisch.", "Sie kocht den Fisch.", "Wir essen die Suppe."),
        "travel": ("Der Zug ist spät.", "Wir nehmen den Bus.", "Das Schiff fährt heute.", "Der Bus fährt spät."),
        "weather": ("Es regnet und schneit.", "Der Wind ist kalt.", "Nachts fällt Regen.", "Der Regen ist kalt."),
    },
    "fr": {
        "food": (
            "La soupe est chaude.",
            "Nous mangeons du pain et du poisson.",
            "Elle cuit le poisson.",
            "Nous mangeons la soupe.",
        ),
        "travel": (
            "Le train est en retard.",
            "Nous prenons le bus.",
            "Le bateau part aujourd'hui.",
            "Le bus part en retard.",
        ),
        "weather": ("Il pleut et il neige.", "Le vent est froid.", "La pluie tombe la nuit.", "La pluie est froide."),
    },
    "es": {
        "food": (
            "La sopa está caliente.",
            "Comemos pan y pescado.",
            "Ella cocina el pescado.",
            "Comemos la sopa caliente.",
        ),
        "travel": ("El tren llega tarde.", "Tomamos el autobús.", "El barco sale hoy.", "El autobús sale tarde."),
        "weather": ("Llueve y nieva.", "El viento es frío.", "La lluvia cae de noche.", "Cae una lluvia fría."),
    },
    "it": {
        "food": (
            "La zuppa è calda.",
            "Mangiamo pane e pesce.",
            "Lei cucina il pesce.",
            "Mangiamo la zuppa calda.",
        ),
        "travel": (
            "Il treno è in ritardo.",
            "Prendiamo l'autobus.",
            "La nave parte oggi.",
            "L'autobus parte in ritardo.",
        ),
        "weather": ("Piove e nevica.", "Il vento è freddo.", "La pioggia cade di notte.", "Cade una pioggia fredda."),
    },
    "pt": {
        "food": (
            "A sopa está quente.",
            "Comemos pão e peixe.",
            "Ela cozinha o peixe.",
            "Comemos a sopa quente.",
        ),
        "travel": (
            "O comboio está atrasado.",
            "Vamos de autocarro.",
            "O navio parte hoje.",
            "O autocarro parte hoje.",
        ),
        "weather": ("Chove e neva.", "O vento é frio.", "A chuva cai de noite.", "Cai uma chuva fria."),
    },
    "nl": {
        "food": ("De soep is heet.", "Wij eten brood en vis.", "Zij kookt de vis.", "Wij eten de hete soep."),
        "travel": (
            "De trein is te laat.",
            "Wij nemen de bus.",
            "Het schip vertrekt vandaag.",
            "De bus vertrekt te laat.",
        ),
        "weather": ("Het regent en sneeuwt.", "De wind is koud.", "De regen valt 's nachts.", "De koude regen valt."),
    },
    "tr": {
        "food": ("Çorba sıcak.", "Ekmek ve balık yiyoruz.", "O balık pişiriyor.", "Sıcak çorba yiyoruz."),
        "travel": (
            "Tren gecikti.",
            "Otobüse biniyoruz.",
            "Gemi bugün kalkıyor.",
            "Otobüs bugün kalkıyor.",
        ),
        "weather": (
            "Yağmur ve kar yağıyor.",
            "Rüzgâr soğuk.",
            "Gece yağmur yağıyor.",
            "Soğuk yağmur yağıyor.",
        ),
    },
    "sw": {
        "food": (
            "Supu ni moto.",
            "Tunakula mkate na samaki.",
            "Yeye anapika samaki.",
            "Tunakula supu moto.",
        ),
        "travel": (
            "Treni imechelewa.",
            "Tunapanda basi.",
            "Meli inaondoka leo.",
            "Basi inaondoka leo.",
        ),
        "weather": (
            "Mvua inanyesha na theluji inaanguka.",
            "Upepo ni baridi.",
            "Mvua inanyesha usiku.",
            "Mvua baridi inanyesha.",
        ),
    },
    "ru": {
        "food": ("Суп горячий.", "Мы едим хлеб и рыбу.", "Она варит рыбу.", "Мы едим горячий суп."),
        "travel": (
            "Поезд опаздывает.",
            "Мы едем на автобусе.",
            "Корабль отходит сегодня.",
            "Автобус отходит сегодня.",
        ),
        "weather": (
            "Идёт дождь и снег.",
            "Ветер холодный.",
            "Ночью идёт дождь.",
            "Идёт холодный дождь.",
        ),
    },
    "hi": {
        "food": (
            "सूप गरम है।",
            "हम रोटी और मछली खाते हैं।",
            "वह मछली पकाती है।",
            "हम गरम सूप खाते हैं।",
        ),
        "travel": (
            "रेलगाड़ी देर से है।",
            "हम बस लेते हैं।",
            "जहाज़ आज जाता है।",
            "बस आज देर से जाती है।",
        ),
        "weather": (
            "बारिश और बर्फ़ गिरती है।",
            "हवा ठंडी है।",
            "रात को बारिश होती है।",
            "ठंडी बारिश होती है।",
        ),
    },
    "zh": {
        "food": ("汤很热。", "我们吃面包和鱼。", "她在煮鱼。", "我们喝热汤。"),
        "travel": ("火车晚点了。", "我们坐公共汽车。", "船今天开。", "公共汽车今天开。"),
        "weather": ("下雨又下雪。", "风很冷。", "夜里下雨。", "下着冷雨。"),
    },
}
