variable "name" {
  description = "Name of the endpoint: model.remote.model of the configuration."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,44}$", var.name))
    error_message = "name has at most 45 letters, digits and hyphens, and begins and ends with a letter or digit."
  }
}

variable "bucket" {
  description = "Bucket that holds the model."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket is a bucket's name, without s3://."
  }
}

variable "model_prefix" {
  description = "Folder of the model in the bucket, as models/chat/3/: a version of the model registry, copied file by file. Another version is another folder."
  type        = string

  validation {
    condition     = can(regex("^[^/*?][^*?]*/$", var.model_prefix))
    error_message = "model_prefix ends with \"/\", does not begin with it, and has no wildcard."
  }
}

variable "model_key_arn" {
  description = "Key that encrypts the bucket."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.model_key_arn))
    error_message = "model_key_arn is the ARN of a key, not its alias."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the instances' volumes and the log. It is one with logs = true (module key)."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key, not its alias."
  }
}

variable "image" {
  description = "Image that serves the model: it answers {\"inputs\": [text, …]} with a list of vectors, and reads /opt/ml/model."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com/[a-z0-9/._-]+(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image is in ECR, with a tag other than latest, or a digest."
  }
}

variable "repository_arn" {
  description = "ARN of the image's repository in ECR."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:ecr:[a-z0-9-]+:[0-9]{12}:repository/[^*]+$", var.repository_arn))
    error_message = "repository_arn is the ARN of one repository."
  }
}

variable "environment" {
  description = "Variables of the container. No secret: who may describe the model reads them."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.environment) : !can(regex("(?i)(token|secret|password|api_?key)", name))])
    error_message = "environment must not hold secrets."
  }
}

variable "instance_type" {
  description = "Instances of the endpoint."
  type        = string
  default     = "ml.g5.xlarge"

  validation {
    condition     = can(regex("^ml\\.[a-z0-9]+\\.[a-z0-9]+$", var.instance_type))
    error_message = "instance_type is one of SageMaker's, as in ml.g5.xlarge."
  }
}

variable "min_instances" {
  description = "Instances at least; they are paid for also when nobody asks."
  type        = number
  default     = 1

  validation {
    condition     = var.min_instances >= 1 && floor(var.min_instances) == var.min_instances
    error_message = "min_instances is a whole number, 1 or more: an endpoint of this kind cannot have none."
  }
}

variable "max_instances" {
  description = "Instances at most."
  type        = number
  default     = 4

  validation {
    condition     = var.max_instances >= 1 && var.max_instances >= var.min_instances
    error_message = "max_instances is 1 or more, and no less than min_instances."
  }
}

variable "requests_per_minute" {
  description = "Requests a minute that one instance is to answer. A request of embedmill has up to model.remote.request_texts texts: measure it."
  type        = number
  default     = 300

  validation {
    condition     = var.requests_per_minute > 0
    error_message = "requests_per_minute is more than 0."
  }
}

variable "log_days" {
  description = "Days for which the container's log is kept. A container may log what it is asked: keep it short."
  type        = number
  default     = 7

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90], var.log_days)
    error_message = "log_days is 1, 3, 5, 7, 14, 30, 60 or 90."
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

variable "partition" {
  description = "AWS partition, aws or aws-us-gov: in China services have other names."
  type        = string
  default     = "aws"

  validation {
    condition     = contains(["aws", "aws-us-gov"], var.partition)
    error_message = "partition is aws or aws-us-gov."
  }
}
