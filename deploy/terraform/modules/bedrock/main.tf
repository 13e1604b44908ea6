locals {
  bedrock  = "arn:${var.partition}:bedrock:${var.region}"
  profiles = [for id in keys(var.inference_profiles) : "${local.bedrock}:${var.account_id}:inference-profile/${id}"]

  # A profile sends a request to any of its regions, and the caller needs the model in each of them.
  profile_models = flatten([for profile in values(var.inference_profiles) : [
    for region in profile.regions : "arn:${var.partition}:bedrock:${region}::foundation-model/${profile.model}"
  ]])

  models = concat([for id in var.models : "${local.bedrock}::foundation-model/${id}"], local.profile_models)
  jobs   = "${local.bedrock}:${var.account_id}:model-invocation-job/*"
}

# For searches and runs that ask text by text, model.backend = "bedrock".
resource "aws_iam_policy" "invoke" {
  name        = "${var.name}-bedrock-invoke"
  description = "Asks the embedding models of Bedrock"

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "Invoke"
      Effect   = "Allow"
      Action   = ["bedrock:InvokeModel"]
      Resource = concat(local.models, local.profiles)
    }]
  })
}

# Account and region have one configuration of logging: this one names a place, and delivers no text, image or vector to it.
resource "aws_bedrock_model_invocation_logging_configuration" "this" {
  count = var.own_invocation_logging ? 1 : 0

  logging_config {
    text_data_delivery_enabled      = false
    embedding_data_delivery_enabled = false
    image_data_delivery_enabled     = false
    video_data_delivery_enabled     = false

    cloudwatch_config {
      log_group_name = aws_cloudwatch_log_group.this[0].name
      role_arn       = aws_iam_role.logging[0].arn
    }
  }

  depends_on = [aws_iam_role_policy.logging]
}

resource "aws_cloudwatch_log_group" "this" {
  count = var.own_invocation_logging ? 1 : 0

  name              = "/aws/bedrock/${var.name}"
  retention_in_days = 30
  kms_key_id        = var.log_key_arn
}

resource "aws_iam_role" "logging" {
  count = var.own_invocation_logging ? 1 : 0

  name        = "${var.name}-bedrock-logging"
  description = "Bedrock writes who asked which model, without texts"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "bedrock.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.account_id }
        ArnLike      = { "aws:SourceArn" = "${local.bedrock}:${var.account_id}:*" }
      }
    }]
  })
}

resource "aws_iam_role_policy" "logging" {
  count = var.own_invocation_logging ? 1 : 0

  name = "logs"
  role = aws_iam_role.logging[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "Write"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "arn:${var.partition}:logs:${var.region}:${var.account_id}:log-group:/aws/bedrock/${var.name}:log-stream:aws/bedrock/modelinvocations"
    }]
  })
}
