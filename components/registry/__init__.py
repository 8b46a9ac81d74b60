"""The model registry: a git repository in which GTO tags name versions (`lavin-dit@v0.2.0`) and stages (`lavin-dit#production#3`).

Every version is one commit: `models/<name>.dvc` tracks its bundle, whose bytes lie in the DVC remote; `dvc.yaml` declares the artifact;
`releases/<name>/` holds copies of the small files that people and gates read. `dvc artifacts get REGISTRY NAME --stage production` works.

Nothing outside this package touches GTO, or git and DVC on a registry's behalf.
"""
