variable "name" {
  description = "What the names of all parts begin with, and the cluster's name."
  type        = string
  default     = "embedmill"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name has 2 to 20 small letters, digits and hyphens, and begins with a letter."
  }
}

variable "environment" {
  description = "A tag of everything: prod, staging or dev."
  type        = string

  validation {
    condition     = contains(["prod", "staging", "dev"], var.environment)
    error_message = "environment is prod, staging or dev."
  }
}

variable "account_id" {
  description = "AWS account that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id has 12 digits."
  }
}

variable "region" {
  description = "AWS region that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is a region's name, as in eu-central-1."
  }
}

variable "zones" {
  description = "Availability zones of the region, two or more."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && alltrue([for zone in var.zones : can(regex("^${var.region}[a-z]$", zone))])
    error_message = "zones are two or more of the region's."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone, for what must outlive the loss of one."
  type        = bool
  default     = false
}

variable "bucket_name" {
  description = "Bucket of state, models and request files, unique in all of AWS."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name has 3 to 63 lower case letters, digits and hyphens, and begins and ends with a letter or digit."
  }
}

variable "noncurrent_days" {
  description = "Days after which what a purge removed has left the bucket's former versions."
  type        = number
  default     = 7

  validation {
    condition     = var.noncurrent_days >= 1 && var.noncurrent_days <= 30 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days is a whole number from 1 to 30."
  }
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes, or null for EKS' newest."
  type        = string
  default     = null

  validation {
    condition     = var.kubernetes_version == null || can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version is a minor version, as in 1.33."
  }
}

variable "admin_role_arns" {
  description = "Roles that administer the cluster, by a name."
  type        = map(string)

  validation {
    condition     = length(var.admin_role_arns) > 0 && alltrue([for arn in values(var.admin_role_arns) : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/", arn))])
    error_message = "admin_role_arns has one ARN of a role or more."
  }
}

variable "public_access_cidrs" {
  description = "Addresses that reach the cluster's API from the internet. With none, helm and kubectl work from inside the VPC alone."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.public_access_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "public_access_cidrs are ranges of IPv4, and not all of it."
  }
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the cluster. Set it to false, and apply, before a destroy."
  type        = bool
  default     = true
}

variable "namespace" {
  description = "Kubernetes namespace that the chart is installed in."
  type        = string
  default     = "embedmill"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace is the name of one namespace: no wildcard."
  }
}

variable "service_accounts" {
  description = "Service accounts of the chart, by the role that they take; those of a release called embedmill by default."
  type = object({
    run   = optional(list(string), ["embedmill", "embedmill-spark"])
    serve = optional(list(string), ["embedmill-serve"])
  })
  default = {}

  validation {
    condition     = length(setintersection(var.service_accounts.run, var.service_accounts.serve)) == 0
    error_message = "a service account takes one role: what serves must not write the state."
  }
}

variable "secrets_account" {
  description = "Service account by which External Secrets reads from Secrets Manager."
  type = object({
    namespace = string
    name      = string
  })
  default = { namespace = "external-secrets", name = "external-secrets" }

  validation {
    condition     = alltrue([for name in values(var.secrets_account) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", name))])
    error_message = "secrets_account has the name of one namespace and of one account in it."
  }
}

variable "encode_on" {
  description = "Pool that Ray's workers encode on: cpu or gpu."
  type        = string
  default     = "cpu"

  validation {
    condition     = contains(["cpu", "gpu"], var.encode_on)
    error_message = "encode_on is cpu or gpu."
  }
}

variable "source_buckets" {
  description = "Other buckets that runs read sources from, by a name of letters, as in module irsa. The team that owns a bucket must let the role in."
  type = map(object({
    arn            = string
    kms_key_arn    = optional(string)
    read_prefixes  = list(string)
    write_prefixes = optional(list(string), [])
  }))
  default = {}

  validation {
    condition     = !contains(keys(var.source_buckets), "data") && alltrue([for bucket in values(var.source_buckets) : length(bucket.write_prefixes) == 0])
    error_message = "source_buckets are read, never written, and none is called data."
  }
}

variable "secret_arns" {
  description = "Secrets of Secrets Manager for External Secrets."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for secret in var.secret_arns : can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^*]+$", secret))])
    error_message = "secret_arns are ARNs of single secrets."
  }
}

variable "bedrock_models" {
  description = "Embedding models of Bedrock that may be asked."
  type        = list(string)
  default     = ["amazon.titan-embed-text-v2:0"]

  validation {
    condition     = alltrue([for id in var.bedrock_models : can(regex("^(amazon\\.titan-embed-text-v2:0|cohere\\.embed-[a-z0-9.:-]+)$", id))])
    error_message = "bedrock_models are amazon.titan-embed-text-v2:0 or cohere.embed models."
  }
}

variable "own_invocation_logging" {
  description = "Whether Bedrock's logging of the whole account and region is set here, without texts. False where another configuration owns it."
  type        = bool
  default     = true
}

variable "sagemaker" {
  description = "Endpoint for a version of a model of the registry, which lies at models/MODEL/VERSION/ in the bucket; null for none."
  type = object({
    model          = string
    version        = number
    image          = string
    repository_arn = string
    instance_type  = optional(string, "ml.g5.xlarge")
  })
  default = null

  validation {
    condition     = var.sagemaker == null || can(regex("^[a-z][a-z0-9-]{0,20}$", var.sagemaker.model))
    error_message = "sagemaker.model is the name of a model: small letters, digits and hyphens, 21 at most."
  }

  validation {
    condition     = var.sagemaker == null || try(var.sagemaker.version >= 1 && floor(var.sagemaker.version) == var.sagemaker.version, false)
    error_message = "sagemaker.version is a version's number."
  }
}

variable "monthly_usd" {
  description = "What a month may cost, in US dollars."
  type        = number

  validation {
    condition     = var.monthly_usd > 0
    error_message = "monthly_usd is more than 0."
  }
}

variable "alarm_emails" {
  description = "Who is told when the budget is about to be spent."
  type        = list(string)

  validation {
    condition     = length(var.alarm_emails) > 0 && alltrue([for email in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "alarm_emails are addresses, at least one."
  }
}
