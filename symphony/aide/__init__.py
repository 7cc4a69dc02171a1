"""The extensions that ship. Each is a folder with a manifest and imports `symphony.extension` alone of the project."""
