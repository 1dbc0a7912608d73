"""Sentences in twelve languages, on which `rembert demo` trains its tokenizer. Written for this project."""

SENTENCES: dict[str, tuple[str, ...]] = {
    "en": (
        "The train to the coast leaves at seven every morning.",
        "My sister bought three lemons and a loaf of bread at the market.",
        "It rained all night, but the streets are already dry.",
        "Please close the window before you go to bed.",
        "We cooked soup with carrots, onions and a little salt.",
        "The children built a boat out of paper and let it float on the lake.",
    ),
    "de": (
        "Der Zug zur Küste fährt jeden Morgen um sieben.",
        "Meine Schwester hat auf dem Markt drei Zitronen und ein Brot gekauft.",
        "Es hat die ganze Nacht geregnet, aber die Straßen sind schon trocken.",
        "Bitte schließ das Fenster, bevor du schlafen gehst.",
        "Wir haben eine Suppe mit Möhren, Zwiebeln und etwas Salz gekocht.",
        "Die Kinder bauten ein Boot aus Papier und ließen es auf dem See schwimmen.",
    ),
    "fr": (
        "Le train pour la côte part à sept heures tous les matins.",
        "Ma sœur a acheté trois citrons et un pain au marché.",
        "Il a plu toute la nuit, mais les rues sont déjà sèches.",
        "Ferme la fenêtre avant d'aller te coucher, s'il te plaît.",
        "Nous avons fait une soupe avec des carottes, des oignons et un peu de sel.",
        "Les enfants ont plié un bateau en papier et l'ont posé sur le lac.",
    ),
    "es": (
        "El tren a la costa sale a las siete todas las mañanas.",
        "Mi hermana compró tres limones y un pan en el mercado.",
        "Llovió toda la noche, pero las calles ya están secas.",
        "Por favor, cierra la ventana antes de acostarte.",
        "Hicimos una sopa con zanahorias, cebollas y un poco de sal.",
        "Los niños hicieron un barco de papel y lo pusieron en el lago.",
    ),
    "it": (
        "Il treno per la costa parte alle sette ogni mattina.",
        "Mia sorella ha comprato tre limoni e un pane al mercato.",
        "Ha piovuto tutta la notte, ma le strade sono già asciutte.",
        "Per favore, chiudi la finestra prima di andare a letto.",
    ),
    "pt": (
        "O comboio para a costa parte às sete todas as manhãs.",
        "A minha irmã comprou três limões e um pão no mercado.",
        "Choveu a noite toda, mas as ruas já estão secas.",
        "Por favor, fecha a janela antes de te deitares.",
    ),
    "nl": (
        "De trein naar de kust vertrekt elke ochtend om zeven uur.",
        "Mijn zus kocht drie citroenen en een brood op de markt.",
        "Het heeft de hele nacht geregend, maar de straten zijn al droog.",
        "Doe het raam dicht voordat je naar bed gaat.",
    ),
    "tr": (
        "Sahile giden tren her sabah yedide kalkıyor.",
        "Kız kardeşim pazardan üç limon ve bir ekmek aldı.",
        "Bütün gece yağmur yağdı ama sokaklar şimdiden kuru.",
        "Lütfen yatmadan önce pencereyi kapat.",
    ),
    "sw": (
        "Treni ya kwenda pwani huondoka saa moja kila asubuhi.",
        "Dada yangu alinunua ndimu tatu na mkate sokoni.",
        "Mvua ilinyesha usiku kucha, lakini barabara zimekauka.",
        "Tafadhali funga dirisha kabla ya kulala.",
    ),
    "ru": (
        "Поезд на побережье отходит каждое утро в семь.",
        "Моя сестра купила на рынке три лимона и буханку хлеба.",
        "Всю ночь шёл дождь, но улицы уже сухие.",
        "Пожалуйста, закрой окно, прежде чем ложиться спать.",
    ),
    "hi": (
        "समुद्र तट जाने वाली गाड़ी हर सुबह सात बजे चलती है।",
        "मेरी बहन ने बाज़ार से तीन नींबू और एक रोटी खरीदी।",
        "रात भर बारिश हुई, पर सड़कें सूख चुकी हैं।",
        "सोने से पहले खिड़की बंद कर देना।",
    ),
    "zh": (
        "去海边的火车每天早上七点开。",
        "我妹妹在市场买了三个柠檬和一个面包。",
        "下了一整夜的雨，但是街道已经干了。",
        "睡觉以前请把窗户关上。",
    ),
}
