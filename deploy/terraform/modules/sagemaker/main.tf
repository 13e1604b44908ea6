locals {
  # A configuration cannot be changed: another one has another name, and the endpoint goes over to it.
  version = substr(sha1(jsonencode([
    var.image, var.bucket, var.model_prefix, var.environment, var.instance_type, var.min_instances, var.kms_key_arn
  ])), 0, 8)

  endpoint_arn = "arn:${var.partition}:sagemaker:${var.region}:${var.account_id}:endpoint/${var.name}"
  log_group    = "/aws/sagemaker/Endpoints/${var.name}"
}

resource "aws_sagemaker_model" "this" {
  name               = "${var.name}-${local.version}"
  execution_role_arn = aws_iam_role.this.arn
  # The container that sees the texts reaches nothing.
  enable_network_isolation = true

  primary_container {
    image       = var.image
    environment = var.environment

    model_data_source {
      s3_data_source {
        s3_uri           = "s3://${var.bucket}/${var.model_prefix}"
        s3_data_type     = "S3Prefix"
        compression_type = "None"
      }
    }
  }

  lifecycle {
    create_before_destroy = true
  }

  depends_on = [aws_iam_role_policy.this]
}

resource "aws_sagemaker_endpoint_configuration" "this" {
  name        = "${var.name}-${local.version}"
  kms_key_arn = var.kms_key_arn

  production_variants {
    variant_name                                      = "main"
    model_name                                        = aws_sagemaker_model.this.name
    instance_type                                     = var.instance_type
    initial_instance_count                            = var.min_instances
    model_data_download_timeout_in_seconds            = 900
    container_startup_health_check_timeout_in_seconds = 900
  }

  # No data_capture_config: it would write the texts of requests to S3.

  lifecycle {
    create_before_destroy = true
  }
}

# Made before the endpoint, which would make one that keeps its lines for ever.
resource "aws_cloudwatch_log_group" "this" {
  name              = local.log_group
  retention_in_days = var.log_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_sagemaker_endpoint" "this" {
  name                 = var.name
  endpoint_config_name = aws_sagemaker_endpoint_configuration.this.name

  depends_on = [aws_cloudwatch_log_group.this]
}

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "sagemaker"
  scalable_dimension = "sagemaker:variant:DesiredInstanceCount"
  resource_id        = "endpoint/${aws_sagemaker_endpoint.this.name}/variant/main"
  min_capacity       = var.min_instances
  max_capacity       = var.max_instances
}

resource "aws_appautoscaling_policy" "this" {
  name               = "${var.name}-requests"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  resource_id        = aws_appautoscaling_target.this.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.requests_per_minute
    scale_out_cooldown = 60
    scale_in_cooldown  = 600

    predefined_metric_specification {
      predefined_metric_type = "SageMakerVariantInvocationsPerInstance"
    }
  }
}
