locals {
  tags = { project = "embedmill", environment = var.environment }

  # Prefixes of the one bucket. The state's has no expiry.
  state_prefix  = "state/"
  models_prefix = "models/"
  batch_prefix  = "batch/"
}

# Two keys: who reads texts needs the first, and what logs, images and alarms are under opens no text.
module "data_key" {
  source = "../../modules/key"

  name        = "${var.name}-data"
  description = "State, models and request files of ${var.name}"
  account_id  = var.account_id
  region      = var.region
}

module "platform_key" {
  source = "../../modules/key"

  name        = "${var.name}-platform"
  description = "Secrets, images, logs and alarms of ${var.name}"
  account_id  = var.account_id
  region      = var.region
  services    = ["budgets.amazonaws.com"]
  logs        = true
}

module "bucket" {
  source = "../../modules/bucket"

  name            = var.bucket_name
  kms_key_arn     = module.data_key.arn
  noncurrent_days = var.noncurrent_days
  expire_prefixes = { (local.batch_prefix) = 3 }
}

module "network" {
  source = "../../modules/network"

  name                = var.name
  account_id          = var.account_id
  region              = var.region
  zones               = var.zones
  nat_per_zone        = var.nat_per_zone
  interface_endpoints = ["sts", "ecr.api", "ecr.dkr", "bedrock-runtime", "sagemaker.runtime"]
  kms_key_arn         = module.platform_key.arn
}

module "eks" {
  source = "../../modules/eks"

  name                = var.name
  account_id          = var.account_id
  region              = var.region
  kubernetes_version  = var.kubernetes_version
  subnet_ids          = module.network.private_subnet_ids
  public_access_cidrs = var.public_access_cidrs
  admin_role_arns     = var.admin_role_arns
  kms_key_arn         = module.platform_key.arn
  deletion_protection = var.deletion_protection
  tags                = local.tags
}

module "registry" {
  source = "../../modules/registry"

  kms_key_arn = module.platform_key.arn
}

module "bedrock" {
  source = "../../modules/bedrock"

  name                   = var.name
  account_id             = var.account_id
  region                 = var.region
  models                 = var.bedrock_models
  bucket                 = module.bucket.name
  batch_prefix           = local.batch_prefix
  bucket_key_arn         = module.data_key.arn
  log_key_arn            = module.platform_key.arn
  own_invocation_logging = var.own_invocation_logging
}

module "sagemaker" {
  source = "../../modules/sagemaker"
  count  = var.sagemaker == null ? 0 : 1

  name           = "${var.name}-${var.sagemaker.model}"
  account_id     = var.account_id
  region         = var.region
  bucket         = module.bucket.name
  model_prefix   = "${local.models_prefix}${var.sagemaker.model}/${var.sagemaker.version}/"
  model_key_arn  = module.data_key.arn
  kms_key_arn    = module.platform_key.arn
  image          = var.sagemaker.image
  repository_arn = var.sagemaker.repository_arn
  instance_type  = var.sagemaker.instance_type
}

module "budget" {
  source = "../../modules/budget"

  name        = "${var.name}-${var.environment}"
  account_id  = var.account_id
  region      = var.region
  monthly_usd = var.monthly_usd
  emails      = var.alarm_emails
  cost_tag    = { key = "project", value = "embedmill" }
  kms_key_arn = module.platform_key.arn
}
