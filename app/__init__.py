"""Evertrue: one YAML file and a table become a model service on Ray that keeps itself true."""
