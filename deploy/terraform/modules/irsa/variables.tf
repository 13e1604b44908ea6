variable "name" {
  description = "Name of the role."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9_-]{1,64}$", var.name))
    error_message = "name has at most 64 letters, digits, \"_\" and \"-\"."
  }
}

variable "description" {
  description = "Who takes the role, and for what."
  type        = string

  validation {
    condition     = length(var.description) > 0
    error_message = "description says who takes the role, and for what."
  }
}

variable "oidc_provider_arn" {
  description = "ARN of the cluster's OIDC provider in IAM."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/[^/]+", var.oidc_provider_arn))
    error_message = "oidc_provider_arn is the ARN of an OIDC provider in IAM."
  }
}

variable "oidc_issuer" {
  description = "The cluster's issuer, https://oidc.eks.REGION.amazonaws.com/id/…"
  type        = string

  validation {
    condition     = can(regex("^https://[a-z0-9-]+([.][a-z0-9-]+)+(/[A-Za-z0-9._/-]*[A-Za-z0-9._-])?$", var.oidc_issuer))
    error_message = "oidc_issuer is https://, a host and its path, without a slash at the end."
  }

  validation {
    condition     = endswith(var.oidc_provider_arn, ":oidc-provider/${trimprefix(var.oidc_issuer, "https://")}")
    error_message = "oidc_issuer is that of oidc_provider_arn, which ends with it without https://."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of the service accounts."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace is the name of one namespace: no wildcard."
  }
}

variable "service_accounts" {
  description = "Service accounts that may take the role."
  type        = list(string)

  validation {
    condition     = length(var.service_accounts) > 0 && alltrue([for account in var.service_accounts : can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", account))])
    error_message = "service_accounts are names of service accounts, at least one: no wildcard."
  }
}

variable "buckets" {
  description = "Prefixes that the role reads (read_prefixes) or reads and writes (write_prefixes), by a name of letters. kms_key_arn is null for a bucket without a key of KMS."
  type = map(object({
    arn            = string
    kms_key_arn    = optional(string)
    read_prefixes  = optional(list(string), [])
    write_prefixes = optional(list(string), [])
  }))
  default = {}

  validation {
    condition     = alltrue([for name, bucket in var.buckets : can(regex("^[a-z]+$", name)) && can(regex("^arn:aws[a-z-]*:s3:::[a-z0-9.-]+$", bucket.arn))])
    error_message = "buckets are named by small letters, and arn is a bucket's, without a path."
  }

  validation {
    condition     = alltrue([for bucket in values(var.buckets) : length(concat(bucket.read_prefixes, bucket.write_prefixes)) > 0])
    error_message = "a bucket in buckets needs read_prefixes or write_prefixes."
  }

  validation {
    condition     = alltrue(flatten([for bucket in values(var.buckets) : [for prefix in concat(bucket.read_prefixes, bucket.write_prefixes) : can(regex("^[^*?/][^*?]*/$", prefix))]]))
    error_message = "a prefix ends with \"/\", does not begin with it, and has no wildcard."
  }
}

variable "secrets" {
  description = "ARNs of secrets of Secrets Manager that the role reads, for External Secrets."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for secret in var.secrets : can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^*]+(-[?]{6})?$", secret))])
    error_message = "secrets are ARNs of single secrets; six question marks may stand for the suffix that AWS adds."
  }
}

variable "policies" {
  description = "ARNs of policies to attach, by name: those of the modules bedrock and sagemaker, or AWS's own for an add-on."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.policies) : !endswith(arn, ":policy/AdministratorAccess") && !endswith(arn, ":policy/PowerUserAccess")])
    error_message = "policies must not hold a policy of an administrator."
  }
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds the role, where the organisation asks for one."
  type        = string
  default     = null
}

variable "region" {
  description = "AWS region that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is a region's name, as in eu-central-1."
  }
}
