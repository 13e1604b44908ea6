"""Documents, text, chunks, embedding spaces and encoders. Pure: no Spark, Ray, Airflow or database here."""
