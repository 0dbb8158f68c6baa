from tests.pipeline_fixtures import mlflow_template, mlflow_uri, prefect_server

__all__ = ["mlflow_template", "mlflow_uri", "prefect_server"]
