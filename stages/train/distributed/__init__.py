"""Trainings on several devices and hosts."""
