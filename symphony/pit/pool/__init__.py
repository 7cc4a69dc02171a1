"""Pool Manager: models, instances, seats. See README.md of this folder."""
