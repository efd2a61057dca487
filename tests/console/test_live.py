"""The page follows its service: news without a reload, silence told, and every part at hand by keyboard."""

import re

import pytest
from playwright.sync_api import expect


def test_news_come_without_a_reload_and_are_spoken_once(visit, service, flights):
    one = visit()
    page = one.open(service)
    expect(page.locator("#health")).to_have_attribute("data-state", "ok")
    page.evaluate(
        """() => { window.spoken = []; const words = document.getElementById("health-words");
        new MutationObserver(() => spoken.push(words.textContent)).observe(words, {childList: true, characterData: true, subtree: true}); }"""
    )
    service.show(flights("fault"))
    for step in range(3):
        service.answers["drift"][1]["step"] = 5000 + step
        one.after(2)
        expect(page.locator("#facts")).to_contain_text(f"step 5,00{step}")
    assert page.evaluate("spoken") == [flights("fault")["drift"]["health"]["words"]]
    assert page.locator("#health-words").get_attribute("aria-live") == "polite"
    assert one.requests.count(service.address) == 1


def test_what_is_open_and_focused_stays_so_when_news_come(visit, service, flights):
    service.show(flights("drift"))
    one = visit()
    page = one.open(service)
    button = page.get_by_role("button", name="origin_day_flights", exact=True)
    button.click()
    page.locator("#timeline summary").first.click()
    button.focus()
    documents = flights("drift")
    documents["drift"]["features"][0]["evidence"] = 99.0
    newest = documents["decisions"]["decisions"][0]
    documents["decisions"]["decisions"].insert(
        0, {**newest, "number": 900, "id": "probe-000900", "kind": "probe", "reason": "news"}
    )
    service.show(documents)
    one.after(2)
    expect(page.locator("#timeline > li").first).to_contain_text("news")
    expect(page.locator("#timeline > li").nth(1).locator("details")).to_have_attribute("open", "")
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#feature-rows .below:visible")).to_contain_text("99 of 9.08")
    expect(button).to_be_focused()


def test_a_service_that_goes_away_is_told_and_asked_more_and_more_seldom(visit, service, flights):
    one = visit()
    one.expected = "Failed to load resource"
    page = one.open(service)
    service.stop()
    one.after(2)
    notice = page.locator("#lost")
    expect(notice).to_contain_text("The service does not answer.")
    expect(page.locator("#link-words")).to_contain_text("Last heard")
    expect(page.locator("#health-words")).to_contain_text("flights is well")
    before = sum(url.endswith("/drift") for url in one.requests)
    for _ in range(30):
        one.after(2)
    assert 1 <= sum(url.endswith("/drift") for url in one.requests) - before <= 6, "not the 30 of a minute"
    expect(notice).to_contain_text("ago; what the page shows is from then. Asking again in")
    service.show(flights("degraded"))
    service.start()
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#health")).to_have_attribute("data-state", "degraded")
    expect(notice).to_be_hidden()
    expect(page.locator("#link-words")).to_have_text("Live")


def test_an_answer_that_is_none_is_told_with_its_status(visit, service):
    one = visit()
    one.expected = "status of 502"
    page = one.open(service)
    service.answers["drift"] = 502, {"detail": "no replica"}
    one.after(2)
    expect(page.locator("#lost-words")).to_have_text("The service answers with status 502: no replica.")


def test_nobody_asks_while_nobody_looks(visit, service):
    one = visit()
    page = one.open(service)
    expect(page.locator("#link-words")).to_have_text("Live")
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.away ?? false, configurable: true})")
    page.evaluate(
        "() => { window.begun = 0; const ask = fetch; window.fetch = (...told) => (begun += 1, ask(...told)); }"
    )
    before = page.evaluate("window.away = true; document.dispatchEvent(new Event('visibilitychange')); begun")
    one.after(60)
    assert page.evaluate("begun") == before
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#link-words")).to_have_text("Live")
    assert page.evaluate("begun") > before


def test_everything_is_at_hand_by_keyboard(visit, service, flights):
    service.show(flights("drift"))
    page = visit().open(service)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    reached = []
    while "BODY" not in reached:
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "(({id, className, tagName}) => [id || className || tagName, getComputedStyle(document.activeElement).outlineStyle])"
            "(document.activeElement)"
        )
        reached.append(name)
        assert outline != "none" or name == "BODY", f"{name} does not show that it has the focus"
    for stop in ("find", "unfold", "features-more", "kind", "SUMMARY", "timeline-more"):
        assert stop in reached
    button = page.get_by_role("button", name="city_left_delay")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-expanded", "false")


def test_decisions_can_be_filtered_by_kind_and_lead_to_what_they_answer(visit, service, flights):
    page = visit().open(service)
    everything = flights()["decisions"]["decisions"]
    entries = page.locator("#timeline > li")
    expect(entries).to_have_count(10)
    page.get_by_role("button", name="Refused by the gate").press("Enter")
    page.get_by_role("button", name="Deployed").press("Space")
    expect(entries).to_have_count(sum(entry["kind"] in ("refused", "deploy") for entry in everything))
    entries.first.locator("summary").press("Enter")
    expect(entries.first.locator(".proof")).to_contain_text("origin=LGA")
    entries.first.get_by_role("link", name="answers retraining").press("Enter")
    answered = next(entry["about"] for entry in everything if entry["kind"] == "refused")
    number = next(entry["number"] for entry in everything if entry["id"] == answered)
    expect(page.locator(f"#entry-{number}")).to_be_focused()
    expect(page).to_have_url(re.compile(f"#entry-{number}$"))
    expect(entries).to_have_count(len(everything))


def test_a_link_to_a_decision_opens_the_page_there(visit, service):
    one = visit()
    one.page.goto(f"{service.address}#entry-3")
    expect(one.page.locator("#entry-3")).to_be_focused()


@pytest.mark.parametrize(("before", "after"), [("light", "dark"), ("dark", "light")])
def test_colours_follow_the_reader_while_the_page_is_open(before, after, visit, service):
    page = visit(color_scheme=before).open(service)
    grounds = []
    for scheme in (before, after):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(FLAGGED)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


# The loss chart has one canvas, and its flags are drawn in the colour that flags have now.
FLAGGED = """() => {
  const [canvas, ...more] = document.querySelectorAll("#loss-chart canvas");
  const mark = getComputedStyle(document.documentElement).getPropertyValue("--mark").trim();
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(mark.slice(at, at + 2), 16));
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i] === red && pixels[i + 1] === green && pixels[i + 2] === blue && pixels[i + 3] === 255) return !more.length;
  }
  return false;
}"""


def test_nothing_moves_for_those_who_asked_for_stillness(visit, service):
    page = visit(reduced_motion="reduce").open(service)
    moving = "[...document.querySelectorAll('*')].filter((node) => getComputedStyle(node).transitionDuration !== '0s').length"
    assert page.evaluate(moving) == 0
