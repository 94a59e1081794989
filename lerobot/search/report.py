"""stub, next"""
from pathlib import Path
from lerobot.core.files import write_json
def write_report(results):
    write_json(results.plan.folder / "study.json", results.tree())
    return results.plan.folder / "report.html"
