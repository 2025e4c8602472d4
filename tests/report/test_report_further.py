"""Models beside base, pruned and tuned stand in one table and one plot with them."""

import json

from stages.report.__main__ import main


def test_further_models_stand_beside_the_three(run_folder):
    params = run_folder / "params.yaml"
    main()
    page = (run_folder / "reports/run.md").read_text()
    assert "Further models" not in page and not (run_folder / "reports/plots/size.png").exists()

    params.write_text(params.read_text().replace("models: {}", "models: {pruned-q8_0: models/x, absent: models/y}"))
    pruned = json.loads((run_folder / "metrics/evaluate/pruned.json").read_text())
    (run_folder / "metrics/evaluate/pruned-q8_0.json").write_text(json.dumps(pruned | {"pydocs_ppl": 31.415}))
    (run_folder / "metrics/profile/pruned-q8_0.json").write_text(json.dumps({"weights_mib": 0.777}))
    main()
    page = (run_folder / "reports/run.md").read_text()
    lines = page.split("## Further models")[1].split("\n## ")[0].splitlines()
    rows = {row[0]: row[1:] for row in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    assert lines[-1] == "![size](plots/size.png)"
    average = sum(pruned[f"{task}_acc"] for task in ("continuation", "gap", "object")) / 3
    assert rows["pruned-q8_0"] == ["31.41", f"{100 * average:.2f}", "0.78", "-", "-", "-"]
    assert rows["absent"] == ["-"] * 6
    assert rows["base"][-1] == "272"
    assert (run_folder / "reports/plots/size.png").read_bytes().startswith(b"\x89PNG")
