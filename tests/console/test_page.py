"""The page shows every state, to everybody, and takes nothing it is told for markup."""

import copy
import datetime as dt
import itertools

import pytest
from playwright.sync_api import expect

NAMES = {
    "ok": "Well",
    "watch": "Under watch",
    "drift": "The world moved",
    "fault": "Upstream fault",
    "degraded": "Degraded",
}
EMPTY = {"status": "no drift actor has reported yet"}
HOSTILE = "<img src=x onerror=pwned=1><script>pwned=1</script>&amp;\"'"


def rolling(flights):
    """Documents of a rollout at a quarter of the rows, while a retraining runs."""
    documents = flights()
    documents["drift"]["rollout"] = {
        "stage": "canary",
        "challenger": "9",
        "share": 0.25,
        "rows": 132,
        "needed": 200,
        "checks": [
            {"name": "errors", "ok": True, "words": "0 of 132 rows failed, 0.1 % allowed"},
            {"name": "latency", "ok": False, "words": "3.2 times the champion's, 3 times allowed"},
            {"name": "loss", "ok": None, "words": "31 of 200 labels have come"},
        ],
    }
    documents["drift"]["retrain"] = {"state": "running", "id": "retrain-81", "since": "2026-11-24T03:00:00Z"}
    return documents


@pytest.mark.parametrize("state", NAMES)
def test_each_state_is_told_in_word_sentence_shape_and_title(state, visit, service, flights):
    service.show(flights(state))
    page = visit().open(service)
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Health: {NAMES[state]}")
    expect(page.locator("#health-words")).to_have_text(flights(state)["drift"]["health"]["words"])
    expect(page.locator("#next-words")).to_have_text(flights(state)["drift"]["next"])
    expect(page).to_have_title(f"{NAMES[state]} · flights · Evertrue")
    assert page.locator("#health-icon path").get_attribute("d")


def test_other_pages_of_the_service_are_linked_and_nothing_else_is_taken_for_one(visit, service, flights):
    documents = flights()
    documents["model"]["links"] = [
        {"name": "MLflow", "address": "https://mlflow.example.com/#/models/flights"},
        {"name": HOSTILE, "address": "http://127.0.0.1:3000/d/evertrue"},
        {"name": "trap", "address": "javascript:pwned=1"},
        {"name": "nothing"},
        "rubbish",
    ]
    service.show(documents)
    page = visit().open(service)
    links = page.locator("#links a")
    expect(links).to_have_text(["MLflow", HOSTILE])
    assert links.first.get_attribute("href") == "https://mlflow.example.com/#/models/flights"
    assert links.first.get_attribute("rel") == "noopener noreferrer"
    assert page.evaluate("window.pwned") is None
    documents["model"]["links"] = None
    service.show(documents)
    expect(visit().open(service).locator("#links")).to_be_hidden()


def test_states_differ_in_shape_not_in_colour_alone(visit, service, flights):
    one = visit()
    page = one.open(service)
    shapes = set()
    for state in NAMES:
        service.show(flights(state))
        one.after(2)
        expect(page.locator("#health")).to_have_attribute("data-state", state)
        shapes.add(page.locator("#health-icon path").get_attribute("d"))
    assert len(shapes) == len(NAMES)


def test_before_the_first_report_the_page_says_so_and_still_names_the_version(visit, service, flights):
    service.show({**flights(), "drift": EMPTY, "decisions": {"decisions": []}})
    page = visit().open(service)
    expect(page.locator("#health-words")).to_have_text("No drift actor has reported yet.")
    expect(page.locator("#facts")).to_contain_text("v8")
    for nothing in ("No labels have come yet", "Nothing is watched yet", "No decision has been made yet"):
        expect(page.get_by_text(nothing)).to_be_visible()


def test_a_service_that_is_not_ready_is_degraded_whatever_the_actor_says(visit, service, flights):
    service.answers["readyz"] = 503, {"detail": "no model is loaded yet"}
    one = visit()
    one.expected = "status of 503"
    page = one.open(service)
    expect(page.get_by_role("heading", level=1)).to_have_text("Health: Degraded")
    expect(page.locator("#health-words")).to_have_text("Not ready: no model is loaded yet")


def test_an_actor_that_has_fallen_silent_is_told_though_the_service_answers(visit, service, flights):
    documents = flights()
    now = dt.datetime.now(dt.UTC)
    documents["drift"]["written"] = now.isoformat()
    service.show(documents)
    one = visit()
    page = one.open(service)
    expect(page.locator("#health")).to_have_attribute("data-state", "ok")
    documents["drift"]["written"] = (now - dt.timedelta(minutes=3)).isoformat()
    one.after(2)
    expect(page.locator("#health")).to_have_attribute("data-state", "degraded")
    expect(page.locator("#health-words")).to_contain_text("the drift actor has been silent since")
    documents["drift"]["interval"] = 60  # it makes its turns seldom
    one.after(2)
    expect(page.locator("#health")).to_have_attribute("data-state", "ok")


def test_a_rollout_shows_its_stage_its_rows_and_every_check(visit, service, flights):
    service.show(rolling(flights))
    page = visit().open(service)
    expect(page.locator("#stages [aria-current=step]")).to_have_text("25\u202f%, under way")
    expect(page.locator("#stages [data-state=done]")).to_have_text(["Shadow, done", "5\u202f%, done"])
    expect(page.get_by_role("progressbar", name="132 of 200 rows answered")).to_have_attribute("value", "132")
    checks = ["Errors passes 0 of 132", "Latency breached 3.2 times", "Loss waits 31 of 200"]
    for check, words in zip(page.locator("#checks li").all(), checks, strict=True):
        expect(check).to_contain_text(words)
    expect(page.locator("#retraining")).to_have_text(
        "Retraining running since 24 Nov 2026, 03:00 by the clockretrain-81"
    )
    assert [one.text_content() for one in page.locator("#checks li:not([data-state=ok])").all()]


def test_a_new_champion_is_shown_as_watched_until_labels_have_confirmed_it(visit, service, flights):
    documents = flights()
    documents["drift"]["rollout"] = {"stage": "champion", "challenger": "8", "share": 1.0, "rows": 40, "needed": 200}
    service.show(documents)
    page = visit().open(service)
    expect(page.locator("#rollout-aside")).to_have_text("v8 is champion, and watched")
    expect(page.locator("#stages [aria-current=step]")).to_have_text("Champion, under way")
    expect(page.get_by_role("progressbar", name="40 of 200 labelled rows")).to_be_visible()


def test_features_come_worst_first_and_unfold_to_expected_and_seen(visit, service, flights):
    service.show(flights("drift"))
    page = visit().open(service)
    buttons = page.locator("#feature-rows button")
    expect(buttons).to_have_text(
        ["city_left_delay", "origin_day_flights", *[buttons.nth(n).text_content() for n in range(2, 8)]]
    )
    buttons.first.click()
    rows = page.locator("#feature-rows .bins tbody tr")
    expect(rows).to_have_count(10)
    assert rows.first.text_content().startswith("below −2.0 σ")
    page.get_by_role("button", name="Show all 41 features").click()
    expect(buttons).to_have_count(41)
    page.get_by_role("searchbox", name="Find a feature by name").fill("WIND")
    expect(buttons).to_have_count(3)


def test_the_charts_are_there_as_a_table_too(visit, service, flights):
    page = visit().open(service)
    label = page.locator("#loss-chart").get_attribute("aria-label")
    assert label.startswith("Mean loss by day and version, from 1 Mar 2013 to 23 Dec 2013; last 7 days 0.45")
    page.locator("#days summary").click()
    expect(page.locator("#days-rows tr")).to_have_count(299)
    newest = flights()["drift"]["loss"]["days"][-1]
    expect(page.locator("#days-rows tr").nth(1)).to_contain_text(
        f"23 Dec 2013{flights()['drift']['traffic']['days'][-2]['rows']}v8{newest['rows']}{newest['loss']:.4f}"
    )


DRAWN = """
window.drawn = [];
const draw = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  const { canvas, textAlign } = this, { width } = this.measureText(text);
  const left = x - width * { right: 1, center: 0.5, left: 0 }[textAlign];
  window.drawn.push([String(text), left >= 0 && left + width <= canvas.width]);
  draw.apply(this, arguments);
};
"""


def drawn(visit, service):
    """Open the page; return it, and what is written into its charts: each text, and whether all of it is to be seen."""
    visited = visit()
    visited.page.add_init_script(DRAWN)
    page = visited.open(service)
    page.wait_for_selector("#traffic-chart canvas")
    page.wait_for_function("window.drawn.some(([text]) => text === '500')")
    return page, dict(page.evaluate("window.drawn"))


@pytest.mark.parametrize(("days", "named"), [(1, {"28 Feb", "1 Mar", "2 Mar"}), (2, {"1 Mar", "2 Mar"})])
def test_the_first_days_are_shown_among_days_not_among_years(days, named, visit, service, flights):
    documents = flights()
    for part in ("loss", "traffic"):
        documents["drift"][part]["days"] = documents["drift"][part]["days"][:days]
    service.show(documents)
    _, texts = drawn(visit, service)
    assert {text for text in texts if text[-1].isalpha() or " 20" in text} == named
    assert all(texts.values())


@pytest.mark.parametrize(
    ("scale", "recent", "axis"),
    [
        (1e9, "456,528,555", {"400m", "450m", "500m", "550m"}),
        (1e-5, "0.000004565", {"4E-6", "4.5E-6", "5E-6", "5.5E-6"}),
    ],
)
def test_a_loss_in_the_targets_own_unit_is_readable_however_large_or_small(
    scale, recent, axis, visit, service, flights
):
    documents = flights()
    documents["drift"]["loss"]["expected"] *= scale
    for day in documents["drift"]["loss"]["days"]:
        day["loss"] *= scale
    service.show(documents)
    page, texts = drawn(visit, service)
    expect(page.locator("#facts")).to_contain_text(recent)
    assert axis <= set(texts)
    assert all(texts.values())


def test_a_pointer_on_a_chart_reads_that_day(visit, service):
    page = visit().open(service)
    page.locator("#loss-chart .u-over").hover(position={"x": 1, "y": 50})  # once it stays where it is
    expect(page.locator("#loss-readout")).to_contain_text("1 Mar 2013 · v1 0.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(scheme, visit, service, flights):
    service.show(rolling(flights))
    one = visit(color_scheme=scheme)
    page = one.open(service)
    page.locator("#feature-rows button").first.click()
    page.locator("#timeline summary").first.click()
    assert page.evaluate(CONTRAST) == []
    for state in NAMES:
        service.show(flights(state))
        one.after(2)
        expect(page.locator("#health")).to_have_attribute("data-state", state)
        assert page.evaluate(CONTRAST) == []


# Texts whose contrast with the ground they lie on is below WCAG's 4.5 (colours mixed over one another).
CONTRAST = """() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) { const colour = rgba(getComputedStyle(node).backgroundColor); if (colour[3] > .99) return colour; }
    return rgba("Canvas");
  };
  const weak = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility({visibilityProperty: true}) || node.closest(".visually-hidden")) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) weak.push(`${node.textContent.trim().slice(0, 40)}: ${((a + .05) / (b + .05)).toFixed(2)}`);
  }
  return weak;
}"""


def test_a_phone_of_360_pixels_shows_it_without_scrolling_sideways(visit, service, flights):
    service.show(rolling(flights))
    one = visit(viewport={"width": 360, "height": 740})
    page = one.open(service)
    for summary in page.locator("summary:visible").all():
        summary.click()
    page.locator("#feature-rows button").first.click()
    assert page.evaluate(OUTSIDE) == []
    for state in NAMES:
        service.show(flights(state))
        one.after(2)
        expect(page.locator("#health")).to_have_attribute("data-state", state)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate(OUTSIDE) == []


# Elements that stick out of the window and lie in no box of their own that scrolls.
OUTSIDE = """() => [...document.querySelectorAll("main *")].filter((node) => node.checkVisibility() && !node.closest(".scroll, .chart, .visually-hidden, svg")
  && node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.tagName + " " + node.className)"""


def test_names_roles_and_order_serve_a_screen_reader(visit, service, flights):
    service.show(rolling(flights))
    page = visit().open(service)
    page.locator("#feature-rows button").first.click()
    page.locator("#timeline summary").first.click()
    assert page.evaluate(NAMELESS) == []
    for role in ("banner", "main", "contentinfo", "navigation"):
        expect(page.get_by_role(role)).to_have_count(1)
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((node) => +node.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every((table) => table.caption?.textContent.trim())"
    )
    assert page.evaluate("document.documentElement.lang") == "en"
    snapshot = page.locator("main").aria_snapshot()
    for part in (
        'heading "Health: Well" [level=1]',
        'button "wind_dir" [expanded]',
        'list "Decisions, newest first"',
    ):
        assert part in snapshot


# Controls and pictures without a name, and references to elements that are not there.
NAMELESS = """() => {
  const text = (node) => node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent || node.getAttribute("alt");
  const controls = [...document.querySelectorAll("button, a, input, progress, summary, [role=img], [role=region], [role=group]")];
  const nameless = controls.filter((node) => !text(node)?.trim()).map((node) => node.outerHTML);
  const lost = [...document.querySelectorAll("[aria-labelledby], [aria-controls]")]
    .filter((node) => !document.getElementById(node.getAttribute("aria-labelledby") ?? node.getAttribute("aria-controls")));
  const pictures = [...document.querySelectorAll("svg:not([aria-hidden]), img:not([alt])")];
  return [...nameless, ...[...lost, ...pictures].map((node) => node.outerHTML)];
}"""


def test_hostile_names_values_and_reasons_are_shown_as_text(visit, service, flights):
    documents = flights("drift")
    drift = documents["drift"]
    drift["model"] = drift["next"] = drift["health"]["words"] = HOSTILE
    drift["health"]["state"] = "__proto__"
    for bin_ in drift["features"][0]["bins"]:
        bin_["bin"] = HOSTILE
    drift["features"][0] |= {"name": HOSTILE, "direction": HOSTILE, "detector": HOSTILE, "kind": HOSTILE}
    drift["features"][1]["name"] = "__proto__"
    drift["findings"][0] |= {"words": HOSTILE, "what": HOSTILE}
    drift["versions"][-1] |= {"version": HOSTILE, "reason": HOSTILE, "metrics": {HOSTILE: 1.0}}
    drift["loss"]["days"][-1]["version"] = HOSTILE
    drift["rollout"] = {
        "challenger": HOSTILE,
        "share": 0.5,
        "rows": 1,
        "needed": 2,
        "checks": [{"name": HOSTILE, "ok": None, "words": HOSTILE}],
    }
    drift["retrain"] = {"state": HOSTILE, "id": HOSTILE, "since": HOSTILE}
    entry = {
        "number": HOSTILE,
        "id": HOSTILE,
        "kind": HOSTILE,
        "at": HOSTILE,
        "written": HOSTILE,
        "step": 1,
        "about": HOSTILE,
    }
    entry |= {
        "version": HOSTILE,
        "reason": HOSTILE,
        "evidence": {HOSTILE: HOSTILE, "deep": [{"a": {"b": {"c": {"d": HOSTILE}}}}]},
    }
    documents["decisions"]["decisions"] = [entry, {**entry, "number": 2, "id": "constructor", "kind": "constructor"}]
    service.show(documents)
    page = visit().open(service)
    for opener in page.locator("#feature-rows button:visible, summary:visible").all():
        opener.click()
    expect(page.get_by_text(HOSTILE, exact=True).first).to_be_visible()
    assert page.get_by_text(HOSTILE).count() > 15
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.locator("img, script").count() == 3, "the page's own icon and its two scripts"


def test_whatever_is_missing_the_rest_is_shown(visit, service, flights):
    documents = flights("fault")
    drift = documents["drift"]
    drift["rollout"] = rolling(flights)["drift"]["rollout"]
    for part in (drift["loss"], drift["traffic"]):
        part["days"] = part["days"][-3:]
    drift["features"], drift["versions"] = drift["features"][:3], drift["versions"][-2:]
    documents["decisions"]["decisions"] = documents["decisions"]["decisions"][:3]
    one = visit()
    page = one.open(service)
    for number, change in enumerate(holes(documents)):
        change["drift"]["next"] = f"look {number}"
        service.show(change)
        one.after(2)
        expect(page.locator("#next-words")).to_have_text(f"look {number}")


def holes(documents):
    """Yield the documents with every key left out, or null in its place when it holds more, one at a time."""

    def paths(value, path=()):
        parts = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
        for key, part in parts:
            yield (*path, key), part
            yield from paths(part, (*path, key))

    for path, part in paths({"drift": documents["drift"], "decisions": documents["decisions"]}):
        if len(path) > 1:
            change = copy.deepcopy(documents)
            inner = change
            for key in path[:-1]:
                inner = inner[key]
            if isinstance(part, dict | list):
                inner[path[-1]] = None
            else:
                del inner[path[-1]]
            yield change
