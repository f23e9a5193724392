"""What several verbs print or draw: tables of evaluations, of variants, a training run, a dry run.

In: figures. Out: lines on standard output, pictures and pages under `reports/`.
"""
