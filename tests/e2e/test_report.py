"""The report opens by itself in a browser: every table and figure loads, nothing is fetched, nothing complains."""

import json
import re
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SHOWN = """async path => {
    new ButtonViewManager(app).handleSelectedResult(path).props.onClick();
    const until = async check => {
        for (let tries = 0; tries < 200; tries++) {
            const found = check();
            if (found) return found;
            await new Promise(done => setTimeout(done, 50));
        }
        return null;
    };
    const wanted = new URL(results[path].data_uri).href;
    return until(() => {
        const shown = [...document.querySelectorAll("#app img, #app iframe")].find(part => part.src === wanted);
        if (!shown) return null;
        if (shown.tagName === "IFRAME") return {frame: true};
        return shown.complete ? {width: shown.naturalWidth} : null;
    });
}"""


@pytest.fixture
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_the_report_is_one_page_that_shows_everything(finished, browser, tmp_path):
    path, _ = finished
    report = tmp_path / "report.html"
    shutil.copy(path / "results/tiny/report.html", report)  # away from everything that it could still read
    page = browser.new_page()
    complaints, fetched = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("#app nav, #app ul")
    found = page.evaluate("Object.entries(categories).flatMap(([name, parts]) => Object.keys(parts).map(part => name))")
    assert sorted(set(found)) == ["Configuration", "Figures", "Tables"]
    names = {re.sub(r".*/", "", name): name for name in page.evaluate("Object.keys(results)")}
    assert set(names) == {
        *(f"{table}.html" for table in ("table1", "table1_pairs", "table2", "table3", "table_privacy", "table_storage")),
        *(f"fig_{figure}.png" for figure in ("samples", "convergence", "prior_convergence", "continual")),
        "configuration.html",
    }
    for short, name in names.items():
        shown = page.evaluate(SHOWN, name)
        assert shown is not None, f"{short} does not load"
        if short.endswith(".png"):
            assert shown["width"] > 500
            continue
        frame = page.frames[-1]
        frame.wait_for_load_state()
        if short == "configuration.html":
            assert "image_learning_rate: 5" in frame.inner_text("pre")
        else:
            assert frame.locator("table tr").count() >= 2
            assert "tiny preset" in frame.inner_text("h1")
        assert page.evaluate("path => results[path].caption", name).strip()
    assert complaints == []
    assert [url for url in fetched if not url.startswith(("data:", "file:", "about:"))] == []
    assert [url for url in fetched if url.startswith("file:")] == [report.as_uri()]


def test_the_report_names_the_configuration_it_was_made_with(finished):
    path, _ = finished
    text = (path / "results/tiny/report.html").read_text()
    assert "preset <strong>tiny</strong>" in json.loads(re.search(r"var workflow_desc = (.*);", text).group(1))
