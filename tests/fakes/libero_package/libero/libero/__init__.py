"""Finds its files through a config, and asks where there is none, as the package does."""

import os

import yaml

FOLDER = os.environ.get("LIBERO_CONFIG_PATH", os.path.expanduser("~/.libero"))
FILE = os.path.join(FOLDER, "config.yaml")
if not os.path.exists(FILE):
    input("Do you want to specify a custom path for the dataset folder? (Y/N): ")


def get_libero_path(key):
    with open(FILE) as file:
        return yaml.safe_load(file)[key]
